"""What happens when a loss or a gradient is nan or infinite: one policy for all methods.

"skip_task"  the update is what it would be had the task been absent (the default);
"skip_step"  nothing is written: an optimizer whose `.grad` are None then does nothing;
"raise"      a `BalanceError` names the task.

A gradient that overflows under a `GradScaler` while its loss is finite is no fault of the task: it is written as it is,
so that the scaler finds it, skips the step and lowers the scale, and no method learns from it. But the task is a
suspect from then on: at the next update its gradient is taken without the scale as well. If it is not finite then
either, no scale will help; the task is broken, and the policy applies. So it is at a scale of 1 or below. Where a
method looks at no gradient, all tasks are suspects after every third fall of the scale in a row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from groupwise.balance.engine.routes.route import entries
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.errors import BalanceError

NonFinite: TypeAlias = Literal["skip_task", "skip_step", "raise"]


@final
@dataclass(frozen=True, eq=False)
class Facts:
    """What is known on the CPU before the method is asked: float64, unscaled.

    Attributes:
        losses: [t].
        gramian: [t, t], where the route has one.
        own: [t] not finite where the gradient of a task-only tensor is not.
    """

    losses: Tensor
    gramian: Tensor | None
    own: Tensor | None

    @cached_property
    def numbers(self) -> list[float]:
        """The losses, as Python has them."""
        found: list[float] = self.losses.tolist()
        return found

    def among(self, kept: Sequence[int]) -> Facts:
        """The same of some tasks alone."""
        if len(kept) == self.losses.shape[0]:
            return self
        chosen = list(kept)
        gramian = None if self.gramian is None else self.gramian[chosen][:, chosen]
        return Facts(self.losses[chosen], gramian, None if self.own is None else self.own[chosen])


@final
@dataclass(frozen=True)
class Verdict:
    """Which tasks take part (their places), which do not and why, and whose gradients may have overflowed.

    Where some may have, the scaler shall see it: everyone is kept.
    """

    kept: tuple[int, ...]
    skipped: dict[str, str]
    overflowed: tuple[str, ...] = ()


def judge(
    tasks: Sequence[str], facts: Facts, policy: NonFinite, scale: float = 1.0, broken: Collection[str] = ()
) -> Verdict:
    """Apply the policy. Raises `BalanceError` under "raise".

    Args:
        tasks, facts: what there is to judge.
        policy: what to do about it.
        scale: what the losses were multiplied by.
        broken: the tasks whose gradients are not finite without the scale either.
    """
    found = _faults(facts, [task in broken for task in tasks])
    if not any(found):
        return Verdict(tuple(range(len(tasks))), {})
    faults = dict(zip(tasks, found, strict=True))
    doubtful = {
        task
        for task, loss in zip(tasks, facts.numbers, strict=True)
        if faults[task] and scale > 1 and task not in broken and math.isfinite(loss)
    }
    skipped = {task: fault for task, fault in faults.items() if fault and task not in doubtful}
    everyone = tuple(range(len(tasks)))
    if skipped and policy == "raise":
        raise BalanceError("; ".join(f"task {task!r}: {fault}" for task, fault in skipped.items()))
    if skipped and policy == "skip_step":
        return Verdict((), skipped)
    if doubtful:
        return Verdict(everyone, {}, tuple(task for task in tasks if task in doubtful))
    return Verdict(tuple(i for i in everyone if tasks[i] not in skipped), skipped)


def broken_among(task_graph: TaskGraph, suspects: Collection[str]) -> frozenset[str]:
    """The suspects whose gradients are not finite, of losses without a scale; their graph is kept."""
    found = set()
    for i, task in enumerate(task_graph.tasks):
        if task in suspects and bool(torch.isfinite(task_graph.losses[task].detach())):
            grads = [grad for grad in task_graph.gradient(i, task_graph.graph.reached(i)) if grad is not None]
            if not all(bool(torch.isfinite(entries(grad)).all()) for grad in grads):
                found.add(task)
    return frozenset(found)


def _faults(facts: Facts, broken: Sequence[bool]) -> list[str]:
    """What is wrong with each task, or nothing."""
    if facts.gramian is None and facts.own is None and not any(broken):
        return [_fault(loss, whole=True) for loss in facts.numbers]
    fine = torch.ones(facts.losses.shape[0], dtype=torch.bool)
    for found in (None if facts.gramian is None else facts.gramian.diagonal(), facts.own):
        fine = fine if found is None else fine & found.isfinite()
    fine &= ~torch.tensor(broken, dtype=torch.bool)
    return [_fault(loss, whole) for loss, whole in zip(facts.numbers, fine.tolist(), strict=True)]


def _fault(loss: float, whole: bool) -> str:
    if not math.isfinite(loss):
        return f"its loss is {loss}"
    return "" if whole else "its gradient is not finite"
