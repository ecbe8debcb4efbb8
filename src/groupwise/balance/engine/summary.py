"""From what an update found to what it says it did."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from groupwise.balance.engine.direction import Direction
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.rows import RowNorms
from groupwise.balance.result import BalanceResult, Cosines, conflicting_tasks, norms_of


def of_nothing(losses: Mapping[str, float], verdict: Verdict, route: Route) -> BalanceResult:
    """Nothing was balanced: all was skipped, or the scaler is to see an overflow."""
    what = (
        "the gradients overflowed under the scaler and were written as they are: it will skip this step"
        if verdict.overflowed
        else "nothing was written"
    )
    return BalanceResult((), dict(losses), {}, {}, {}, (), verdict.skipped, f"{what} ({route.words})", 0.0)


def of_weights(
    tasks: Sequence[str],
    facts: Facts,
    verdict: Verdict,
    route: Route,
    weights: Tensor | None,
    shown: RowNorms | None = None,
) -> BalanceResult:
    """A weighted sum; without `weights`, the plain sum of task-only gradients."""
    names, those = _taking_part(tasks, facts, verdict)
    numbers = [1.0] * len(names) if weights is None else weights.tolist()
    by_task = {} if weights is None else dict(zip(names, numbers, strict=True))
    loss = sum(map(operator.mul, those.numbers, numbers))
    conflicting: tuple[str, ...] = ()
    if those.gramian is not None and weights is not None:
        gramian = those.gramian
        products = gramian @ weights
        conflicting = conflicting_tasks(names, products, norms_of(gramian), (weights @ products).clamp(min=0).sqrt())
    return _result(tasks, facts, verdict, route, by_task, conflicting, loss, shown)


def of_direction(
    tasks: Sequence[str],
    facts: Facts,
    verdict: Verdict,
    route: Route,
    direction: Direction,
    shown: RowNorms | None,
) -> BalanceResult:
    """The update of a Jacobian method."""
    names, those = _taking_part(tasks, facts, verdict)
    norms = torch.zeros(len(names), dtype=torch.float64)
    if those.gramian is not None:
        norms = norms_of(those.gramian)
    conflicting = conflicting_tasks(names, direction.products, norms, direction.length)
    return _result(tasks, facts, verdict, route, {}, conflicting, sum(those.numbers), shown)


def _result(
    tasks: Sequence[str],
    facts: Facts,
    verdict: Verdict,
    route: Route,
    weights: Mapping[str, float],
    conflicting: tuple[str, ...],
    loss: float,
    shown: RowNorms | None,
) -> BalanceResult:
    names, those = _taking_part(tasks, facts, verdict)
    norms: dict[str, float] = {}
    cosines: Mapping[tuple[str, str], float] = {}
    if those.gramian is not None:
        norms = dict(zip(names, norms_of(those.gramian).tolist(), strict=True))
        cosines = Cosines(names, those.gramian)
    losses = dict(zip(tasks, facts.numbers, strict=True))
    shares = _shares(shown, verdict.kept)
    return BalanceResult(
        names, losses, weights, norms, cosines, conflicting, verdict.skipped, route.words, loss, route.shared, shares
    )


def _taking_part(tasks: Sequence[str], facts: Facts, verdict: Verdict) -> tuple[tuple[str, ...], Facts]:
    """The tasks that are kept, and what is known of these."""
    if len(verdict.kept) == len(tasks):
        return tuple(tasks), facts
    return tuple(tasks[i] for i in verdict.kept), facts.among(verdict.kept)


def _nothing() -> None:
    """No shares."""


def _shares(shown: RowNorms | None, kept: Sequence[int]) -> Callable[[], Tensor | None]:
    """The norms by task and parameter, for as long as the rows are there."""
    if shown is None:
        return _nothing
    there = weakref.ref(shown)

    def shares() -> Tensor | None:
        norms = there()
        return None if norms is None else norms.of(kept)

    return shares
