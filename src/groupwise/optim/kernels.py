"""Which groups one engine call may hold, and which of them a fused kernel serves.

Decided at step time from the tensors as they are, and never written into the live groups. A fused kernel raises on
sparse, complex and differentiable cases, for SGD on DTensors too, and one call must not mix parameters of
several device meshes; the rest it does faster: one pass over weights, gradient and moments instead of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from groupwise.optim.engine import Groups

_FUSABLE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def calls_of(cls: type, groups: Groups, state: Mapping[torch.Tensor, Any]) -> list[Groups]:
    """The group lists to hand to the engine, one call each: split by device mesh, marked fused where that serves."""
    meshes = {_mesh(p) for group in groups for p in group["params"]}
    if len(meshes) > 1:
        parts = [[_part(group, mesh) for group in groups] for mesh in meshes]
        return [_marked(cls, [group for group in part if group["params"]], state) for part in parts]
    return [_marked(cls, groups, state)]


def _marked(cls: type, groups: Groups, state: Mapping[torch.Tensor, Any]) -> Groups:
    return [group | {"fused": True} if _serves(cls, group, state) else group for group in groups]


def _serves(cls: type, group: Mapping[str, Any], state: Mapping[torch.Tensor, Any]) -> bool:
    if cls not in _FUSABLE or torch.compiler.is_compiling():
        return False
    chosen = group.get("fused") is not None or group.get("foreach") is not None or group.get("differentiable")
    if chosen or any(isinstance(value, torch.Tensor) for key, value in group.items() if key != "params"):
        return False
    devices = _get_fused_kernels_supported_devices()
    return all(_fits(p, devices, state.get(p)) for p in group["params"] if p.grad is not None)


def _fits(p: torch.Tensor, devices: list[str], own: Mapping[str, Any] | None) -> bool:
    gradient = p.grad
    plain = gradient is not None and gradient.layout == torch.strided and _mesh(p) is None
    step = own.get("step") if own else None
    here = not isinstance(step, torch.Tensor) or step.device == p.device
    return plain and here and p.is_floating_point() and p.device.type in devices


def _part(group: dict[str, Any], mesh: object) -> dict[str, Any]:
    return group | {"params": [p for p in group["params"] if _mesh(p) == mesh]}


def _mesh(p: torch.Tensor) -> object:
    return getattr(p, "device_mesh", None)
