"""Gradients as clipping sees them: dense and sparse alike, read once, never brought to the host.

A sparse gradient is coalesced first: the norm of uncoalesced values is silently wrong. Norms of shards are norms of the
whole. Everything stays on the device of the gradients; norms of several devices meet on the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from groupwise import _torch
from groupwise._shards import is_sharded, local
from groupwise.optim.shards import like, of_ranks

_HALF = (torch.float16, torch.bfloat16)  # their norms would round, or overflow


def values_of(p: torch.Tensor) -> torch.Tensor:
    """The numbers in a parameter's gradient, as one dense tensor that shares memory with it."""
    gradient = p.grad
    if gradient is None:
        raise ValueError("the parameter has no gradient")
    if is_sharded(p):
        gradient = p.grad = like(gradient, p)
    if gradient.layout == torch.strided:
        return gradient
    if not gradient.is_coalesced():
        p.grad = gradient = gradient.coalesce()
    return gradient.values()


def norms_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The 2-norms of n >= 1 tensors, shape [n], in float32 (float64 if any tensor is)."""
    double = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    dtype = torch.float64 if double else torch.float32
    norms: list[torch.Tensor | None] = [None] * len(tensors)
    for indices in _alike(tensors):
        parts = [local(tensors[i]) for i in indices]
        found = _torch.norms(parts, torch.float32 if parts[0].dtype in _HALF else None)
        for i, norm in zip(indices, _joined(found, tensors[indices[0]]), strict=True):
            norms[i] = norm
    device = tensors[0].device
    return torch.stack([norm.to(device=device, dtype=dtype) for norm in norms if norm is not None])


def multiply(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply every tensor, in place, by one number on a device, shape []."""
    for indices in _alike(tensors):
        parts = [local(tensors[i]) for i in indices]
        _torch.multiply(parts, factor.to(parts[0].device))


def _joined(norms: Sequence[torch.Tensor], t: torch.Tensor) -> Sequence[torch.Tensor]:
    """The norms of whole tensors, all split as `t` is, from those of this rank's parts: one exchange for all."""
    if not is_sharded(t):
        return norms
    joined: torch.Tensor = torch.linalg.vector_norm(of_ranks(torch.stack([*norms]), t), dim=0)
    return joined.unbind()


def _alike(tensors: Sequence[torch.Tensor]) -> Iterable[list[int]]:
    """Indices of tensors that one foreach call may hold: same device and type, split in one way over the same ranks."""
    alike: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        spread = getattr(t, "device_mesh", None), getattr(t, "placements", None)
        alike.setdefault((t.device, t.dtype, *spread), []).append(i)
    return alike.values()
