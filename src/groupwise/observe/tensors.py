"""Parameters and gradients as plain tensors.

A sparse gradient is coalesced first (the norm of uncoalesced values is silently wrong), and stays so, which every
sparse optimizer would do next. Of a DTensor this rank's part is taken; a part that r ranks hold alike counts for 1/r,
so that a sum over the ranks is a sum over the entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch

from groupwise._shards import copies, is_sharded, local
from groupwise._torch import norms, stored_values

_HALF: Final = (torch.float16, torch.bfloat16)  # their norms would round, or overflow


def gradient_of(p: torch.Tensor) -> torch.Tensor | None:
    """The gradient of a parameter, this rank's part of it: dense, or sparse and coalesced."""
    gradient: Any = p.grad
    if gradient is None or (type(gradient) is torch.Tensor and gradient.layout == torch.strided):
        return gradient
    if is_sharded(gradient):
        if gradient.placements != p.placements:  # type: ignore[attr-defined]
            gradient = gradient.redistribute(p.device_mesh, p.placements)  # type: ignore[attr-defined]
        return local(gradient)
    if gradient.layout == torch.sparse_coo and not gradient.is_coalesced():
        p.grad = gradient = gradient.coalesce()
    return gradient  # type: ignore[no-any-return]


def gradients_of(params: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """Their gradients, each as `gradient_of` has it."""
    return [
        g if (g := p.grad) is None or (type(g) is torch.Tensor and g.layout == torch.strided) else gradient_of(p)
        for p in params
    ]


def entries(gradient: torch.Tensor) -> torch.Tensor:
    """The numbers in a gradient as a dense tensor; those that a sparse one leaves out are zero."""
    return stored_values(gradient) if gradient.layout == torch.sparse_coo else gradient


def replicas(p: Any, world: int) -> int:
    """How many ranks hold the same part of a parameter."""
    if not is_sharded(p):
        return world
    return int(copies(p) * world // p.device_mesh.size())


def norms_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The norm of each of n >= 1 tensors, shape [n], on the device of the first."""
    if len({(t.dtype, t.device) for t in tensors}) == 1:
        return torch.stack([*_norms(tensors)])
    alike: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        alike.setdefault((t.device, t.dtype), []).append(i)
    norms = {
        i: norm for where in alike.values() for i, norm in zip(where, _norms([tensors[i] for i in where]), strict=True)
    }
    return gathered(norms[i] for i in range(len(tensors)))


def squares(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of squares of each of n >= 1 tensors, shape [n], in the precision of sums."""
    found = norms_of(tensors)
    return found.to(precision(found.device)).square_()


def _norms(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The norms of tensors of one type on one device."""
    return norms(list(tensors), torch.float32 if tensors[0].dtype in _HALF else None)


def gathered(scalars: Iterable[torch.Tensor]) -> torch.Tensor:
    """0-dim tensors as one vector, on the device of the first; of different types, in the precision of sums."""
    held = list(scalars)
    first = held[0].device
    if len({t.dtype for t in held}) == 1 and all(t.device == first for t in held):
        return torch.stack(held)
    return torch.stack([t.to(device=first, dtype=precision(first)) for t in held])


def precision(device: torch.device) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64
