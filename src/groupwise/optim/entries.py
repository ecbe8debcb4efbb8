"""Clipping entry by entry, and unit by unit.

Adaptive gradient clipping bounds, for each output unit i of a weight W, |G_i| by r * max(|W_i|, eps) (Brock et al.
2021, "High-performance large-scale image recognition without normalization", section 4). A unit is a row: all
dimensions but the first; a vector or a scalar is one unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from groupwise.optim.gradients import values_of


def clip_values(tensors: Sequence[torch.Tensor], bound: float) -> torch.Tensor:
    """Clamp every entry to [-bound, bound] in place; return the largest magnitude found, shape []."""
    real = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    largest = torch.stack([t.abs().amax().to(real[0].device, torch.float32) for t in real]).amax()
    torch._foreach_clamp_min_(real, -bound)
    torch._foreach_clamp_max_(real, bound)
    return largest


def clip_unitwise(params: Sequence[torch.Tensor], ratio: float, eps: float) -> torch.Tensor:
    """Clip each unit's gradient to `ratio` x max(|unit's weights|, eps) in place; return the largest ratio found."""
    found = []
    for p in params:
        gradient = values_of(p)
        weight = _touched(p)
        allowed = _unit_norm(weight).clamp(min=eps)
        relative = _unit_norm(gradient) / allowed
        gradient.mul_((ratio / relative).clamp(max=1.0).nan_to_num(nan=1.0))
        found.append(relative.amax().to(params[0].device, torch.float32))
    return torch.stack(found).amax()


def _touched(p: torch.Tensor) -> torch.Tensor:
    """The weights whose gradient is stored: the rows of a sparse gradient, else all."""
    gradient = p.grad
    if gradient is None or gradient.layout == torch.strided:
        return p.detach()
    return p.detach()[tuple(gradient._indices())]


def _unit_norm(t: torch.Tensor) -> torch.Tensor:
    rows = tuple(range(1, t.ndim)) or None
    norm: torch.Tensor = torch.linalg.vector_norm(t, dim=rows, keepdim=rows is not None)
    return norm
