"""Which groups a fused kernel serves.

Decided at step time from the tensors as they are, and never written into the live groups. A fused kernel raises on
sparse, complex and differentiable cases; on a CPU it is silently wrong where strides differ or have gaps. The rest it
does faster: one pass over weights, gradient and moments instead of several. Shards come as plain tensors (`shards`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from groupwise.optim.engine import Groups

_FUSABLE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)

Sound: TypeAlias = dict[torch.Tensor, tuple[Mapping[str, Any], tuple[int, ...]]]
"""Parameters found fit, each with the state and the strides that it had then: checked again when either changes."""


def marked(cls: type, groups: Groups, state: Mapping[torch.Tensor, Any], sound: Sound) -> Groups:
    """The groups as the engine is to get them: those that a fused kernel serves are copies that say so."""
    return [_with_fused_steps(group, state) if _serves(cls, group, state, sound) else group for group in groups]


def _with_fused_steps(group: dict[str, Any], state: Mapping[torch.Tensor, Any]) -> dict[str, Any]:
    """A copy of the group that says so, each step count where a fused kernel wants it: a load leaves it on the CPU."""
    if group["params"] and group["params"][0].device.type != "cpu":
        for p in group["params"]:
            count = state[p].get("step") if p in state else None
            if isinstance(count, torch.Tensor) and count.device != p.device:
                state[p]["step"] = count.to(p.device, torch.float32)
    return group | {"fused": True}


def _serves(cls: type, group: Mapping[str, Any], state: Mapping[torch.Tensor, Any], sound: Sound) -> bool:
    if cls not in _FUSABLE or torch.compiler.is_compiling():
        return False
    chosen = group.get("fused") is not None or group.get("foreach") is not None or group.get("differentiable")
    if chosen or any(isinstance(value, torch.Tensor) for key, value in group.items() if key != "params"):
        return False
    stepped = [p for p in group["params"] if p.grad is not None]
    fit = all(_fits(p, state.get(p), sound) for p in stepped)
    return fit and (cls is not torch.optim.SGD or _sgd_is_sound(group["momentum"], stepped, state))


def _sgd_is_sound(momentum: float, stepped: list[torch.Tensor], state: Mapping[torch.Tensor, Any]) -> bool:
    """Whether fused SGD does what SGD does. Up to torch 2.13 it leaves most of a half-precision weight on a CPU as it
    was (pytorch#191763), and raises where some of a group's momentum buffers exist already and some do not.
    """
    half = any(p.device.type == "cpu" and p.element_size() < 4 for p in stepped)
    begun = {bool(momentum) and state.get(p, {}).get("momentum_buffer") is not None for p in stepped}
    return not half and len(begun) <= 1


def _fits(p: torch.Tensor, own: Mapping[str, Any] | None, sound: Sound) -> bool:
    """Whether one index means one place in weight, gradient and state: fused kernels read plain memory."""
    gradient, stride = p.grad, p.stride()
    if gradient is None or gradient.layout != torch.strided or gradient.stride() != stride:
        return False
    known = sound.get(p)
    if known is not None and known[0] is own and known[1] == stride:
        return True
    if not _is_sound(p, own):
        return False
    if own:
        sound[p] = own, stride
    return True


def _is_sound(p: torch.Tensor, own: Mapping[str, Any] | None) -> bool:
    dense = p.is_contiguous() or (p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last))
    usual = p.is_floating_point() and p.device.type in _get_fused_kernels_supported_devices()
    held = [value for key, value in (own or {}).items() if isinstance(value, torch.Tensor) and key != "step"]
    return dense and usual and all(value.device == p.device and _alike(p, value) for value in held)


def _alike(p: torch.Tensor, other: torch.Tensor) -> bool:
    return other.shape != p.shape or (other.stride() == p.stride() and other.dtype == p.dtype)
