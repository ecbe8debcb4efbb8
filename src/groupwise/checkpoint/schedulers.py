"""The scheduler, which is the one part that writes into another: its undoing covers the optimizer's groups."""

from __future__ import annotations

import copy
from typing import Any, final

import torch

from groupwise.checkpoint.part import Part, Undo
from groupwise.checkpoint.stateful import Stateful, StatefulPart


@final
class SchedulerPart(Part):
    """A scheduler: `PlanScheduler`, any of torch's, or whatever has the two methods."""

    def __init__(self, scheduler: Stateful) -> None:
        self._scheduler = scheduler
        self._plain = StatefulPart(scheduler)

    def capture(self) -> Any:
        return self._plain.capture()

    def check(self, saved: Any) -> None:
        self._plain.check(saved)

    def snapshot(self) -> Undo:
        groups = getattr(getattr(self._scheduler, "optimizer", None), "param_groups", [])
        values = [(group, {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}) for group in groups]
        training = [(p, p.requires_grad, p.grad) for group in groups for p in group["params"]]
        fields, rewind = dict(vars(self._scheduler)), self._plain.snapshot()

        def undo() -> None:
            rewind()
            vars(self._scheduler).update(fields)
            for group, before in values:
                _refill(group, before)
            for p, trains, gradient in training:
                p.requires_grad_(trains)
                p.grad = gradient

        return undo

    def apply(self, saved: Any) -> bool:
        return self._plain.apply(saved)


def _refill(group: dict[str, Any], before: dict[str, Any]) -> None:
    """Put a group's values back; a tensor keeps its identity."""
    for key, value in before.items():
        now = group.get(key)
        if isinstance(now, torch.Tensor) and isinstance(value, torch.Tensor):
            now.copy_(value)
        else:
            group[key] = value
