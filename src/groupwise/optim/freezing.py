"""Freezing, in the one way that survives momentum, weight decay and several processes.

A frozen group is passed over by the step and its gradients are dropped, so nothing moves it. In one process (and under
FSDP2) its parameters stop requiring gradients as well, which saves their backward. Under DistributedDataParallel the
set of parameters that require gradients must not change after wrapping (ranks drift silently, or raise), so there
`requires_grad` stays as it is and the gradient is computed, reduced and then dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from groupwise.optim.engine import Groups


def freeze(group: dict[str, Any], frozen: bool, for_good: bool = False) -> None:
    """Freeze or thaw a live group. One frozen `for_good` never needs its gradients, whatever the process count."""
    group["frozen"] = frozen
    for p in group["params"]:
        if for_good or _may_flip(p):
            p.requires_grad_(not frozen)
        if frozen:
            p.grad = None


def drop_gradients(groups: Iterable[dict[str, Any]]) -> Groups:
    """The groups that a step may update; the gradients of the frozen ones are dropped."""
    awake = []
    for group in groups:
        if not group.get("frozen", False):
            awake.append(group)
            continue
        for p in group["params"]:
            p.grad = None
    return awake


def _may_flip(p: torch.Tensor) -> bool:
    alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
    return alone or getattr(p, "device_mesh", None) is not None
