"""Which groups a fused kernel serves.

Decided at step time from the tensors as they are, and never written into the live groups. A fused kernel raises on
sparse, complex and differentiable cases; on a CPU it is silently wrong where strides differ or have gaps. The rest it
does faster: one pass over weights, gradient and moments instead of several. Shards come as plain tensors (`shards`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from groupwise.optim.engine import Groups

_FUSABLE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def marked(cls: type, groups: Groups, state: Mapping[torch.Tensor, Any]) -> Groups:
    """The groups as the engine is to get them: those that a fused kernel serves are copies that say so."""
    return [_with_fused_steps(group, state) if _serves(cls, group, state) else group for group in groups]


def _with_fused_steps(group: dict[str, Any], state: Mapping[torch.Tensor, Any]) -> dict[str, Any]:
    """A copy of the group that says so, each step count where a fused kernel wants it: a load leaves it on the CPU."""
    for p in group["params"]:
        count = state[p].get("step") if p in state else None
        if isinstance(count, torch.Tensor) and count.device != p.device:
            state[p]["step"] = count.to(p.device, torch.float32)
    return group | {"fused": True}


def _serves(cls: type, group: Mapping[str, Any], state: Mapping[torch.Tensor, Any]) -> bool:
    if cls not in _FUSABLE or torch.compiler.is_compiling():
        return False
    chosen = group.get("fused") is not None or group.get("foreach") is not None or group.get("differentiable")
    if chosen or any(isinstance(value, torch.Tensor) for key, value in group.items() if key != "params"):
        return False
    devices = _get_fused_kernels_supported_devices()
    stepped = [p for p in group["params"] if p.grad is not None]
    fit = all(_fits(p, devices, state.get(p)) for p in stepped)
    return fit and (cls is not torch.optim.SGD or _sgd_is_sound(group["momentum"], stepped, state))


def _sgd_is_sound(momentum: float, stepped: list[torch.Tensor], state: Mapping[torch.Tensor, Any]) -> bool:
    """Whether fused SGD does what SGD does. Up to torch 2.13 it leaves most of a half-precision weight on a CPU as it
    was (pytorch#191763), and raises where some of a group's momentum buffers exist already and some do not.
    """
    half = any(p.device.type == "cpu" and p.element_size() < 4 for p in stepped)
    begun = {bool(momentum) and state.get(p, {}).get("momentum_buffer") is not None for p in stepped}
    return not half and len(begun) <= 1


def _fits(p: torch.Tensor, devices: list[str], own: Mapping[str, Any] | None) -> bool:
    gradient = p.grad
    if gradient is None or gradient.layout != torch.strided:
        return False
    held = (value for key, value in own.items() if isinstance(value, torch.Tensor) and key != "step") if own else ()
    dense = p.is_contiguous() or (p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last))
    flat = dense and _alike(p, [gradient, *held])
    return flat and p.is_floating_point() and p.device.type in devices


def _alike(p: torch.Tensor, others: list[torch.Tensor]) -> bool:
    """Whether one index means one place in all of them: fused kernels read plain memory, whatever the strides."""
    device, dtype, shape, stride = p.device, p.dtype, p.shape, p.stride()
    return all(
        other.device == device and (other.shape != shape or (other.stride() == stride and other.dtype == dtype))
        for other in others
    )
