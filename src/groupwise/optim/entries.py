"""Clipping entry by entry, and unit by unit.

Adaptive gradient clipping bounds, for each output unit i of a weight W, |G_i| by r * max(|W_i|, eps) (Brock et al.
2021, "High-performance large-scale image recognition without normalization", section 4). A unit is a row: all
dimensions but the first; a vector or a scalar is one unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from groupwise import _torch
from groupwise._shards import is_sharded, local
from groupwise.optim.gradients import values_of
from groupwise.optim.shards import of_ranks


def clip_values(tensors: Sequence[torch.Tensor], bound: float) -> torch.Tensor:
    """Clamp every entry to [-bound, bound] in place; return the largest magnitude found, shape []."""
    parts = [local(t) for t in tensors]
    real = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    largest = _largest([part.abs() for part in real], tensors)
    _torch.clamp(real, bound)
    return largest


def clip_unitwise(params: Sequence[torch.Tensor], ratio: float, eps: float) -> torch.Tensor:
    """Clip each unit's gradient to `ratio` x max(|unit's weights|, eps) in place; return the largest ratio found."""
    found = []
    for p in params:
        gradient = values_of(p)
        allowed = _unit_norm(_touched(p)).clamp(min=eps)
        relative = _unit_norm(gradient) / allowed
        local(gradient).mul_((ratio / relative).clamp(max=1.0).nan_to_num(nan=1.0))
        found.append(relative)
    return _largest(found, params)


def _largest(parts: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The largest number in what belongs to `tensors`, of which this rank has `parts`; shape []."""
    device = tensors[0].device
    own = [part.amax() if part.numel() else part.new_zeros(()) for part in parts]
    spread = [of_ranks(most[None], t).amax() for most, t in zip(own, tensors, strict=True)]
    return torch.stack([most.to(device, torch.float32) for most in spread]).amax()


def _touched(p: torch.Tensor) -> torch.Tensor:
    """The weights whose gradient is stored: the rows of a sparse gradient, else all."""
    gradient = p.grad
    if gradient is None or gradient.layout == torch.strided:
        return p.detach()
    return p.detach()[tuple(gradient.indices())]


def _unit_norm(t: torch.Tensor) -> torch.Tensor:
    """The norm of every unit of `t` that this rank has a part of, to be broadcast over that part."""
    part = local(t)
    rows = tuple(range(1, t.ndim)) or None
    norm: torch.Tensor = torch.linalg.vector_norm(part, dim=rows, keepdim=rows is not None)
    return (
        torch.linalg.vector_norm(of_ranks(norm.flatten(), t, units=True), dim=0).view_as(norm)
        if is_sharded(t)
        else norm
    )
