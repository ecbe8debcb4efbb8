"""The losses of a step, by task name: what the balancer takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from groupwise._spelling import shown
from groupwise.errors import BalanceError


def differentiable(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each loss as a scalar that requires grad, in the order given.

    Raises `BalanceError` naming the task for anything that cannot be balanced.
    """
    checked = {task: _scalar(task, loss) for task, loss in named(losses).items()}
    owners: dict[int, str] = {}
    for task, loss in losses.items():
        if not loss.requires_grad:
            raise BalanceError(
                f"the loss of task {task!r} does not require grad: it was detached, made under no_grad(), "
                "or depends on no trainable parameter; where a batch has none of that task, or it is a number for the "
                "log, leave the task out of this call"
            )
        if owners.setdefault(id(loss), task) != task:
            raise BalanceError(
                f"tasks {owners[id(loss)]!r} and {task!r} were given the same tensor: compute a loss for each, "
                "or balance one task of that name"
            )
    return checked


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
    if not isinstance(loss, Tensor):
        raise BalanceError(f"the loss of task {task!r} is {shown(loss)} ({type(loss).__name__}), not a tensor")
    if loss.numel() != 1:
        raise BalanceError(
            f"the loss of task {task!r} is not a scalar: its shape is {list(loss.shape)}; "
            "reduce it with .mean() or .sum()"
        )
    if not loss.is_floating_point():
        raise BalanceError(f"the loss of task {task!r} is of dtype {loss.dtype}, not a real floating-point number")
    return loss if loss.dim() == 0 else loss.reshape(())


def _number(task: str, loss: object) -> float:
    if isinstance(loss, bool) or not isinstance(loss, int | float):
        raise BalanceError(f"the loss of task {task!r} is {shown(loss)} ({type(loss).__name__}), not a number")
    return float(loss)
