"""One update: look, bring the facts to the CPU, judge, ask, write. Nothing is kept before the end.

Where the weights are known beforehand (`Property.SEPARATE`: static weights, uncertainty), a task's weight comes from
its own past and is the same for every micro-batch. Each is then written at once, for the cost of the plain sum, and
the method's memory moves once, on the sums of the losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.balance.engine import summary
from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.direction import direction_of, scatter, task_specific_weights_of, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.reduction.reduction import Batch, Losses, Reduction
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import RowNorms
from groupwise.balance.engine.run import Run
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError


def complete(reduction: Reduction, batch: Batch) -> BalanceResult:
    """The update of these losses and of whatever is accumulated."""
    run = reduction.run
    run.buffers.shown = None
    if run.accumulated and run.accumulated.rows is None:
        return _complete_at_once(reduction, batch)
    route, losses = _route(reduction, batch)
    run.accumulated = Accumulated()
    facts, s = transfer(losses, route, batch.scale)
    tasks = tuple(losses)
    verdict = run.judged(tasks, facts, None if batch.scale is None else s)
    reduction.remember_grads(batch.losses, route)
    if verdict.overflowed:
        ones = torch.ones(len(tasks), dtype=torch.float64)
        route.write(ones, ones, verdict.kept)
    if verdict.overflowed or not verdict.kept:
        return summary.of_nothing(dict(zip(tasks, facts.losses.tolist(), strict=True)), verdict, route)
    if route.rows is not None:
        route.rows.scale = s
        route.rows.zero_rows([i for i in range(len(tasks)) if i not in verdict.kept])
    if isinstance(run.method, JacobianMethod):
        result = _by_update(run, run.method, route, facts, verdict, tasks)
    else:
        result = _by_weights(run, route, facts, verdict, tasks)
    run.stepped(result.tasks)
    return result


def accumulate(reduction: Reduction, batch: Batch) -> None:
    """Keep the gradients of a micro-batch, or write them at once."""
    if reduction.run.weighs_at_once:
        _write_at_once(reduction, batch, last=False)
    else:
        reduction.accumulate(batch)


def _route(reduction: Reduction, batch: Batch) -> tuple[Route, Losses]:
    if reduction.run.accumulated:
        return reduction.completed(batch)
    return reduction.probed(batch) if reduction.run.needs_rows else reduction.weighted(batch)


def _write_at_once(reduction: Reduction, batch: Batch, last: bool) -> Route:
    """Write a micro-batch's weighted gradient, and add its losses up; the method learns nothing yet."""
    run = reduction.run
    route, losses = reduction.weighted(batch)
    facts, s = transfer(losses, route, batch.scale)
    tasks = tuple(losses)
    verdict = run.judged(tasks, facts, None if batch.scale is None else s, last)
    if verdict.kept:
        reduction.remember_grads(batch.losses, route)
        _write_weighted(run, route, facts, verdict, tasks, run.memory.copy())
    kept = {tasks[i]: facts.losses[i] for i in verdict.kept}
    run.accumulated = run.accumulated.written(kept, verdict.skipped, run.broken)
    return route


def _complete_at_once(reduction: Reduction, batch: Batch) -> BalanceResult:
    """Write the last micro-batch; let the method learn from the sums."""
    run = reduction.run
    route = _write_at_once(reduction, batch, last=True)
    sums, run.accumulated = run.accumulated, Accumulated()
    tasks = tuple(sums.losses)
    verdict = Verdict(tuple(range(len(tasks))), dict(sums.skipped))
    if not tasks:
        return summary.of_nothing(dict.fromkeys(sums.skipped, torch.nan), verdict, route)
    facts = Facts(torch.stack([*sums.losses.values()]), None, None)
    weights = weights_of(run.method, None, run.context(tasks, facts.losses), run.memory)
    run.stepped(tasks)
    return summary.of_weights(tasks, facts, verdict, route, weights)


def _by_update(
    run: Run, method: JacobianMethod, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]
) -> BalanceResult:
    rows = route.rows
    if rows is None:
        raise BalanceError(f"{method.name} needs a route that has rows")
    context, labels = _context(run, facts, verdict, tasks), run.columns.leaves(run.scope.named)
    direction = direction_of(method, rows, verdict.kept, context, labels, run.memory) if rows.blocks else None
    own = scatter(task_specific_weights_of(method, context, run.memory), verdict.kept, len(tasks))
    route.write_update(() if direction is None else direction.update, own, verdict.kept)
    if direction is None:  # nothing is known to be shared
        return summary.of_weights(tasks, facts, verdict, route, None)
    return summary.of_direction(tasks, facts, verdict, route, direction, _shown(run, route))


def _context(run: Run, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> MethodContext:
    kept = list(verdict.kept)
    return run.context(tuple(tasks[i] for i in kept), facts.among(kept).losses)


def _by_weights(run: Run, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> BalanceResult:
    if run.held_out is not None and isinstance(route, Rowwise):
        alignments = run.held_out.alignments(route)[list(verdict.kept)]
        run.method.learn(alignments, _context(run, facts, verdict, tasks), run.memory)
        run.held_out = None
    weights = _write_weighted(run, route, facts, verdict, tasks, run.memory)
    return summary.of_weights(tasks, facts, verdict, route, weights, _shown(run, route))


def _write_weighted(
    run: Run, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...], memory: Memory
) -> Tensor:
    """Ask the method, which may learn in `memory`, and write; [kept] the weights."""
    kept, context = list(verdict.kept), _context(run, facts, verdict, tasks)
    weights = weights_of(run.method, facts.among(kept).gramian, context, memory)
    own = weights if run.setup.weighted else task_specific_weights_of(run.method, context, memory)
    route.write(scatter(weights, kept, len(tasks)), scatter(own, kept, len(tasks)), kept)
    return weights


def _shown(run: Run, route: Route) -> RowNorms | None:
    """The rows, for whoever asks for `BalanceResult.shares` before the next update."""
    if route.shared and route.rows is not None:
        run.buffers.shown = RowNorms(route.rows)
    return run.buffers.shown
