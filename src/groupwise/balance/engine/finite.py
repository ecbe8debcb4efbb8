"""What happens when a loss or a gradient is nan or infinite: one policy for all methods.

"skip task"  the update is what it would be had the task been absent (the default);
"skip step"  nothing is written: an optimizer whose `.grad` are None then does nothing;
"raise"      a `BalanceError` names the task.

A gradient that overflows under a `GradScaler` while its loss is finite is no fault of the task: it is written as it is,
so that the scaler finds it, skips the step and lowers the scale, and no method learns from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from groupwise.errors import BalanceError

NonFinite: TypeAlias = Literal["skip task", "skip step", "raise"]


@final
@dataclass(frozen=True, eq=False)
class Facts:
    """What is known on the CPU before the method is asked: float64, unscaled.

    Attributes:
        losses: [t].
        gramian: [t, t], where the route has looked.
        own: [t] not finite where the gradient of a task-only tensor is not.
    """

    losses: Tensor
    gramian: Tensor | None
    own: Tensor | None

    def among(self, kept: Sequence[int]) -> Facts:
        """The same of some tasks alone."""
        if len(kept) == len(self.losses):
            return self
        chosen = list(kept)
        gramian = None if self.gramian is None else self.gramian[chosen][:, chosen]
        return Facts(self.losses[chosen], gramian, None if self.own is None else self.own[chosen])


@final
@dataclass(frozen=True)
class Verdict:
    """Which tasks take part (their places), which do not and why, and whether the scaler shall see an overflow."""

    kept: tuple[int, ...]
    skipped: dict[str, str]
    overflow: bool = False


def judge(tasks: Sequence[str], facts: Facts, policy: NonFinite, scaled: bool) -> Verdict:
    """Apply the policy. Raises `BalanceError` under "raise"."""
    faults = dict(zip(tasks, _faults(facts), strict=True))
    skipped = {task: fault for task, fault in faults.items() if fault}
    everyone = tuple(range(len(tasks)))
    if not skipped:
        return Verdict(everyone, {})
    if scaled and all(bool(facts.losses[i].isfinite()) for i in everyone):
        return Verdict(everyone, {}, overflow=True)
    if policy == "raise":
        raise BalanceError("; ".join(f"task {task!r}: {fault}" for task, fault in skipped.items()))
    if policy == "skip step":
        return Verdict((), skipped)
    return Verdict(tuple(i for i in everyone if not faults[tasks[i]]), skipped)


def _faults(facts: Facts) -> list[str]:
    """What is wrong with each task, or nothing."""
    fine = torch.ones(len(facts.losses), dtype=torch.bool)
    for told in (None if facts.gramian is None else facts.gramian.diagonal(), facts.own):
        fine = fine if told is None else fine & told.isfinite()
    return [_fault(loss, whole) for loss, whole in zip(facts.losses.tolist(), fine.tolist(), strict=True)]


def _fault(loss: float, whole: bool) -> str:
    if not math.isfinite(loss):
        return f"its loss is {loss}"
    return "" if whole else "its gradient is not finite"
