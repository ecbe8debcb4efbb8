"""Gradients as clipping sees them: dense and sparse alike, read once, never brought to the host.

A sparse gradient is coalesced first: the norm of uncoalesced values is silently wrong. Norms of shards are norms of the
whole. Everything stays on the device of the gradients; norms of several devices meet on the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

_HALF = (torch.float16, torch.bfloat16)  # their norms would round, or overflow


def values_of(p: torch.Tensor) -> torch.Tensor:
    """The numbers in a parameter's gradient, as one dense tensor that shares memory with it."""
    gradient = p.grad
    if gradient is None:
        raise ValueError("the parameter has no gradient")
    if gradient.layout == torch.strided:
        return gradient
    if not gradient.is_coalesced():
        p.grad = gradient = gradient.coalesce()
    return gradient._values()


def norms_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The 2-norms of n >= 1 tensors, shape [n], in float32 (float64 if any tensor is)."""
    double = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    dtype = torch.float64 if double else torch.float32
    norms: list[torch.Tensor | None] = [None] * len(tensors)
    for indices in _alike(tensors):
        part = [tensors[i] for i in indices]
        found = torch._foreach_norm(part, 2, dtype=torch.float32 if part[0].dtype in _HALF else None)
        for i, norm in zip(indices, found, strict=True):
            norms[i] = _whole(norm)
    device = tensors[0].device
    return torch.stack([norm.to(device=device, dtype=dtype) for norm in norms if norm is not None])


def multiply(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply every tensor, in place, by one number on a device, shape []."""
    for indices in _alike(tensors):
        part = [tensors[i] for i in indices]
        torch._foreach_mul_(part, factor.to(part[0].device))


def _alike(tensors: Sequence[torch.Tensor]) -> Iterable[list[int]]:
    """Indices of tensors that one foreach call may hold: same device, type and mesh."""
    alike: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        alike.setdefault((t.device, t.dtype, getattr(t, "device_mesh", None)), []).append(i)
    return alike.values()


def _whole(norm: torch.Tensor) -> torch.Tensor:
    full = getattr(norm, "full_tensor", None)
    return norm if full is None else full()
