"""What Gramian methods share: the lengths of the gradients, those that are zero, and the preference of a user."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from groupwise.balance.by_task import ByTask
from groupwise.balance.memory import Memory
from groupwise.balance.method import MethodContext
from groupwise.errors import BalanceError, listed, unknown


def lengths(gramian: Tensor) -> Tensor:
    """[t] the norms of the gradients."""
    return gramian.diagonal().clamp(min=0).sqrt()


def unit(gramian: Tensor) -> Tensor:
    """[t, t] the cosines; no gradient may be zero."""
    n = lengths(gramian)
    return gramian / n.outer(n)


def among_present(gramian: Tensor, solve: Callable[[Tensor, Tensor | slice], Tensor]) -> Tensor:
    """[t] weights by `solve(gramian, index)` of the gradients that are not zero; the index is a slice if all are.

    A zero gradient moves nothing whatever its weight. It gets the mean of the others' (so that a head which is told its
    task's weight goes on learning), or 1 where all are zero.
    """
    if all(square > 0 for square in gramian.diagonal().tolist()):
        return solve(gramian, _ALL)
    present = gramian.diagonal() > 0
    weights = torch.ones(len(gramian), dtype=torch.float64)
    if bool(present.any()):
        found = solve(gramian[present][:, present], present.nonzero()[:, 0])
        weights = torch.full_like(weights, float(found.mean()))
        weights[present] = found
    return weights


_ALL = slice(None)


def preferred(preference: Mapping[str, float] | None, what: str, tasks: tuple[str, ...]) -> Tensor:
    """[t] the preference of the tasks, scaled to add up to 1; equal where none was given."""
    if preference is None:
        return torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)
    chosen = ByTask(preference).numbers(f"the preference of {what}", tasks)
    return chosen / chosen.sum()


def require_above_zero(preference: Mapping[str, float] | None, what: str) -> None:
    """Raise `BalanceError` naming the first task whose preference is zero or below."""
    for task, value in (preference or {}).items():
        if not value > 0:
            raise BalanceError(f"{what}: preference: task {task!r} has {value:g}, and a preference is above 0")


def primary_of(given: str | None, what: str, context: MethodContext, memory: Memory) -> int:
    """The row of the primary task: the one that was named, or else the first that was ever seen."""
    if given is not None:
        if given not in context.tasks:
            raise BalanceError(f"{what}: its primary is absent: {unknown('task', given, context.tasks)}; {_WAY_OUT}")
        return context.tasks.index(given)
    first = sorted(memory.tasks_with(_PRIMARY))
    if not first:
        memory.keep_tasks(_PRIMARY, context.tasks[:1], torch.ones(1, dtype=torch.float64))
        return 0
    if first[0] not in context.tasks:
        raise BalanceError(
            f"{what}: the primary task {first[0]!r} (the first one seen) is absent from this update of "
            f"{listed(context.tasks)}; {_WAY_OUT}"
        )
    return context.tasks.index(first[0])


_PRIMARY = "primary"
_WAY_OUT = "give its loss in every batch, or choose primary= among the tasks that always come"
