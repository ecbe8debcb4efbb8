"""One update: look, bring the facts to the CPU, judge, ask, write. Nothing is kept before the end.

Where the weights are known beforehand (`Property.SEPARATE`: static weights, uncertainty), a task's weight comes from
its own past and is the same for every micro-batch. Each is then written at once, for the cost of the plain sum, and
the method's memory moves once, on the sums of the losses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from groupwise._warning import warn
from groupwise.balance.engine import summary
from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.direction import direction_of, scatter, task_specific_weights_of, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.reduction.reduction import Batch, Losses, Reduction
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import RowNorms
from groupwise.balance.engine.state import State
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError

MANY: Final = 1000
"""So many backwards that were accumulated for one update are rather a `backward` that is missing."""


def complete(reduction: Reduction, batch: Batch) -> BalanceResult:
    """The update of these losses and of whatever is accumulated."""
    state = reduction.state
    state.buffers.shown = None
    if state.accumulated and state.accumulated.rows is None:
        return _complete_at_once(reduction, batch)
    route, losses = _route(reduction, batch)
    state.accumulated = Accumulated()
    facts, s = transfer(losses, route, batch.scale)
    tasks = tuple(losses)
    verdict = state.judged(tasks, facts, None if batch.scale is None else s)
    reduction.remember_grads(batch.losses, route)
    if verdict.overflowed:
        ones = torch.ones(len(tasks), dtype=torch.float64)
        route.write(ones, ones, verdict.kept)
    if verdict.overflowed or not verdict.kept:
        return summary.of_nothing(dict(zip(tasks, facts.numbers, strict=True)), verdict, route)
    if route.rows is not None:
        route.rows.scale = s
        route.rows.zero_rows([i for i in range(len(tasks)) if i not in verdict.kept])
    if isinstance(state.method, JacobianMethod):
        result = _by_update(state, state.method, route, facts, verdict, tasks)
    else:
        result = _by_weights(state, route, facts, verdict, tasks)
    state.stepped(result.tasks)
    return result


def accumulate(reduction: Reduction, batch: Batch) -> None:
    """Keep the gradients of a micro-batch, or write them at once."""
    state = reduction.state
    before = state.accumulated.passes
    if state.weighs_at_once:
        _write_at_once(reduction, batch, last=False)
    else:
        reduction.accumulate(batch)
    if before < MANY <= state.accumulated.passes:
        lacks = "the method learns nothing" if state.weighs_at_once else "nothing is written to .grad"
        warn(
            f"{state.accumulated.passes} backwards were accumulated, and no backward() has completed the update: until "
            f"then {lacks}. Give the last micro-batch of each update to backward(), the others to accumulate()"
        )


def _route(reduction: Reduction, batch: Batch) -> tuple[Route, Losses]:
    if reduction.state.accumulated:
        return reduction.completed(batch)
    return reduction.probed(batch) if reduction.state.needs_rows else reduction.weighted(batch)


def _write_at_once(reduction: Reduction, batch: Batch, last: bool) -> Route:
    """Write a micro-batch's weighted gradient, and add its losses up; the method learns nothing yet."""
    state = reduction.state
    route, losses = reduction.weighted(batch)
    facts, s = transfer(losses, route, batch.scale)
    tasks = tuple(losses)
    verdict = state.judged(tasks, facts, None if batch.scale is None else s, last)
    if verdict.kept:
        reduction.remember_grads(batch.losses, route)
        weights, own = _asked(state, facts, verdict, tasks, state.memory.copy())
        _write_weighted(route, weights, own, verdict, len(tasks))
    kept = {tasks[i]: facts.losses[i] for i in verdict.kept}
    state.accumulated = state.accumulated.written(kept, verdict.skipped, state.broken)
    return route


def _complete_at_once(reduction: Reduction, batch: Batch) -> BalanceResult:
    """Write the last micro-batch; let the method learn from the sums."""
    state = reduction.state
    route = _write_at_once(reduction, batch, last=True)
    sums, state.accumulated = state.accumulated, Accumulated()
    tasks = tuple(sums.losses)
    verdict = Verdict(tuple(range(len(tasks))), dict(sums.skipped))
    if not tasks:
        return summary.of_nothing(dict.fromkeys(sums.skipped, torch.nan), verdict, route)
    facts = Facts(torch.stack([*sums.losses.values()]), None, None)
    weights = weights_of(state.method, None, state.context(tasks, facts.losses), state.memory)
    state.stepped(tasks)
    return summary.of_weights(tasks, facts, verdict, route, weights)


def _by_update(
    state: State, method: JacobianMethod, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]
) -> BalanceResult:
    rows = route.rows
    if rows is None:
        raise BalanceError(f"{method.name} needs a route that has rows")
    context, labels = _context(state, facts, verdict, tasks), state.columns.leaves(state.scope.named)
    direction = direction_of(method, rows, verdict.kept, context, labels, state.memory) if rows.blocks else None
    own = scatter(task_specific_weights_of(method, context, state.memory), verdict.kept, len(tasks))
    route.write_update(() if direction is None else direction.update, own, verdict.kept)
    if direction is None:  # nothing is known to be shared
        return summary.of_weights(tasks, facts, verdict, route, None)
    return summary.of_direction(tasks, facts, verdict, route, direction, _shown(state, route))


def _context(state: State, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> MethodContext:
    if len(verdict.kept) == len(tasks):
        return state.context(tasks, facts.losses)
    return state.context(tuple(tasks[i] for i in verdict.kept), facts.among(verdict.kept).losses)


def _by_weights(state: State, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> BalanceResult:
    if state.held_out is not None and isinstance(route, Rowwise):
        alignments = state.held_out.alignments(route)[list(verdict.kept)]
        state.method.learn(alignments, _context(state, facts, verdict, tasks), state.memory)
        state.held_out = None
    weights, own = _asked(state, facts, verdict, tasks, state.memory)
    result = summary.of_weights(tasks, facts, verdict, route, weights, _shown(state, route))
    _write_weighted(route, weights, own, verdict, len(tasks))
    return result if result.route == route.words else replace(result, route=route.words)


def _asked(
    state: State, facts: Facts, verdict: Verdict, tasks: tuple[str, ...], memory: Memory
) -> tuple[Tensor, Tensor]:
    """Ask the method, which may learn in `memory`: [kept] the weights, and those of task-only tensors."""
    context = _context(state, facts, verdict, tasks)
    weights = weights_of(state.method, facts.among(verdict.kept).gramian, context, memory)
    return weights, weights if state.setup.weighted else task_specific_weights_of(state.method, context, memory)


def _write_weighted(route: Route, weights: Tensor, own: Tensor, verdict: Verdict, count: int) -> None:
    kept = verdict.kept
    route.write(scatter(weights, kept, count), scatter(own, kept, count), kept)


def _shown(state: State, route: Route) -> RowNorms | None:
    """The rows, for whoever asks for `BalanceResult.shares` before the next update."""
    if route.shared and route.rows is not None:
        state.buffers.shown = RowNorms(route.rows)
    return state.buffers.shown
