"""Losses that a formula cannot take, named: the logarithm of zero, the variance of a negative loss."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from groupwise._spelling import number
from groupwise.errors import BalanceError


class _Named(Protocol):
    @property
    def name(self) -> str:
        """The method's."""


def require_positive(
    method: _Named,
    losses: Tensor,
    tasks: tuple[str, ...],
    way_out: str,
    wants: str = "takes the logarithm of a loss",
) -> None:
    """Raise `BalanceError` naming the first task whose loss is zero or below."""
    _require(method, (losses > 0).tolist(), losses, tasks, wants, way_out)


def require_at_least_zero(method: _Named, losses: Tensor, tasks: tuple[str, ...], way_out: str) -> None:
    """Raise `BalanceError` naming the first task whose loss is below zero."""
    _require(method, (losses >= 0).tolist(), losses, tasks, "is defined for losses that are not negative", way_out)


def _require(
    method: _Named, fine: list[bool], losses: Tensor, tasks: tuple[str, ...], wants: str, way_out: str
) -> None:
    for task, ok, loss in zip(tasks, fine, losses.tolist(), strict=True):
        if not ok:
            raise BalanceError(f"{method.name} {wants}, and task {task!r} has the loss {number(loss)}: {way_out}")
