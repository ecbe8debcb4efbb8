"""The losses of a step, by task name: what the balancer takes, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor

from groupwise._spelling import shown
from groupwise.errors import BalanceError


def differentiable(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each loss as a scalar that requires grad, in the order given.

    Raises `BalanceError` naming the task for anything that cannot be balanced.
    """
    checked = {task: _scalar(task, loss) for task, loss in named(losses).items()}
    for task, loss in checked.items():
        if not loss.requires_grad:
            raise BalanceError(
                f"the loss of task {task!r} does not require grad: it was detached, made under no_grad(), "
                "or depends on no trainable parameter; where a batch has none of that task, or it is a number for the "
                "log, leave the task out of this call"
            )
    if len({*map(id, losses.values())}) < len(checked):
        one, other = _same(losses)
        raise BalanceError(
            f"tasks {one!r} and {other!r} were given the same tensor: compute a loss for each, "
            "or balance one task of that name"
        )
    return checked


def _same(losses: Mapping[str, Tensor]) -> tuple[str, str]:
    """The first two tasks with the same tensor."""
    pairs = itertools.combinations(losses, 2)
    return next((one, other) for one, other in pairs if losses[one] is losses[other])


def values(losses: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The losses as plain numbers, for the moments that differentiate nothing."""
    return {
        task: float(_scalar(task, loss).detach()) if isinstance(loss, Tensor) else _number(task, loss)
        for task, loss in named(losses).items()
    }


def named(losses: Mapping[str, Tensor] | Mapping[str, Tensor | float]) -> Mapping[str, Tensor]:
    """The mapping itself. Raises `BalanceError` if it is none, is empty, or has a name that is not text."""
    if not isinstance(losses, Mapping):
        raise BalanceError(
            f'losses are given by task, {{"seg": loss, "depth": loss}}, not as {shown(losses)} '
            f"({type(losses).__name__})"
        )
    if not losses:
        raise BalanceError("no task: losses is empty; leave out the tasks that are absent from a batch, but not all")
    for task in losses:
        if not isinstance(task, str) or not task:
            raise BalanceError(f"the name of a task is text, not {shown(task)}")
    return losses  # type: ignore[return-value]  # its values are looked at one by one


def _scalar(task: str, loss: object) -> Tensor:
    if isinstance(loss, Tensor) and not loss.dim() and loss.is_floating_point():
        return loss
    if not isinstance(loss, Tensor):
        raise BalanceError(f"the loss of task {task!r} is {shown(loss)} ({type(loss).__name__}), not a tensor")
    if loss.numel() != 1:
        raise BalanceError(
            f"the loss of task {task!r} is not a scalar: its shape is {list(loss.shape)}; "
            "reduce it with .mean() or .sum()"
        )
    if not loss.is_floating_point():
        raise BalanceError(f"the loss of task {task!r} is of dtype {loss.dtype}, not a real floating-point number")
    return loss.reshape(())


def _number(task: str, loss: object) -> float:
    if isinstance(loss, bool) or not isinstance(loss, int | float):
        raise BalanceError(f"the loss of task {task!r} is {shown(loss)} ({type(loss).__name__}), not a number")
    return float(loss)
