"""One update: look, bring the facts to the CPU, judge, ask, write. Nothing is kept before the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from groupwise.balance.engine import distributed, summary
from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.cut import AUTO, cut
from groupwise.balance.engine.direction import direction_of, scatter, task_specific_weights_of, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.ranks.process_group import require_process_group
from groupwise.balance.engine.routes.features import Features
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.routes.sequential import passes, sequential
from groupwise.balance.engine.routes.weighted import Weighted
from groupwise.balance.engine.routes.without_rows import Batched, Layer
from groupwise.balance.engine.rows import Buffers, RowNorms
from groupwise.balance.engine.run import Run
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError

Losses: TypeAlias = Mapping[str, Tensor]


def complete(run: Run, losses: Losses, features: object, scale: Tensor | None) -> BalanceResult:
    """The update of these losses and of whatever is accumulated."""
    run.buffers.shown = None
    require_process_group(run.setup.ranks, run.setup.alone)
    route, sums = _probe(run, losses, features, scale)
    run.accumulated = Accumulated()
    facts, s = transfer(sums, route, scale)
    tasks = tuple(sums)
    verdict = run.judged(tasks, facts, None if scale is None else s)
    run.remember_grads(losses, route)
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


def accumulate(run: Run, losses: Losses, scale: Tensor | None) -> None:
    """Keep the gradients of a micro-batch."""
    ranks = run.setup.ranks
    require_process_group(ranks, run.setup.alone)
    if ranks is not None:
        distributed.accumulate(ranks, run, losses, scale)
        return
    run.find_broken(losses, scale)
    task_graph = run.task_graph(losses, scale)
    _require_whole(task_graph)
    run.accumulated = run.accumulated.with_rows(losses, passes(task_graph), run.broken)
    _require_whole(task_graph)


def _probe(run: Run, losses: Losses, features: object, scale: Tensor | None) -> tuple[Route, Losses]:
    """Take the gradients along the way that the method, the arguments and the moment ask for; the losses of all."""
    ranks = run.setup.ranks
    if ranks is not None:
        return distributed.route(ranks, run, losses, features, scale)
    run.find_broken(losses, scale)
    if not run.accumulated and (not run.needs_rows or not run.due(tuple(losses))):
        return weighing(run, losses, scale), losses
    task_graph = run.task_graph(losses, scale)
    _require_whole(task_graph)
    route, sums = _rows(run, losses, task_graph, features)
    _require_whole(task_graph)
    return route, sums


def weighing(run: Run, losses: Losses, scale: Tensor | None) -> Weighted:
    """The route for weights that need no look."""
    return Weighted(losses, scale, None if run.setup.weighted else run.task_graph(losses, scale))


def _rows(run: Run, losses: Losses, task_graph: TaskGraph, features: object) -> tuple[Route, Losses]:
    if run.accumulated:
        whole = run.accumulated.with_rows(losses, passes(task_graph), run.broken)
        run.accumulated, run.broken = Accumulated(), whole.broken
        shared = whole.shared(run.scope.candidates)
        columns = run.columns_of(shared, len(whole.losses))
        return whole.finalize(shared if columns is None else columns), whole.losses
    if run.held_out is not None:
        return sequential(task_graph, run.buffers, None), losses
    return _probing(run, task_graph, features), losses


def _probing(run: Run, task_graph: TaskGraph, features: object) -> Route:
    """The route that looks at gradients; `route="auto"` is decided here."""
    cost, layer = run.setup.route, run.scope.layer
    columns = run.columns_of(task_graph.shared, len(task_graph.tasks))
    if not task_graph.shared and features is None and layer is None:
        return sequential(task_graph, run.buffers, columns)  # a trunk that is frozen: there is nothing to look at
    if features is not None or cost == "features":
        place = AUTO if features is None else features
        return Features(*cut(task_graph, place), isinstance(place, str))
    if layer is not None:
        return Layer(task_graph, layer)
    if cost == "gramian" or (cost == "auto" and columns is None and not _fit(task_graph, run.buffers)):
        return Batched(task_graph)
    return sequential(task_graph, run.buffers, columns)


def _fit(task_graph: TaskGraph, buffers: Buffers) -> bool:
    """Whether the rows have a place: they do if they had one before, or if nobody can tell."""
    on_device = [leaf for leaf in task_graph.shared if leaf.is_cuda]
    if not on_device or buffers.held:
        return True
    device = on_device[0].device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return len(task_graph.tasks) * sum(leaf.numel() * leaf.element_size() for leaf in on_device) < 0.8 * free


def _require_whole(task_graph: TaskGraph) -> None:
    """Raise `BalanceError` where the leaves are passing copies; a root that was never resharded shows it afterwards."""
    plain = (leaf for leaf in task_graph.graph.leaves if leaf.numel() and leaf.layout == torch.strided)
    if task_graph.graph.sharded or any(leaf.untyped_storage().size() == 0 for leaf in plain):
        raise BalanceError(
            "the parameters belong to fully_shard, and their gradients to its copies, which are gone after a backward: "
            "pass parameters= the outermost fully_shard module"
        )


def _by_update(
    run: Run, method: JacobianMethod, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]
) -> BalanceResult:
    rows = route.rows
    if rows is None:
        raise BalanceError(f"{method.name} needs a route that has rows")
    ones = torch.ones(len(tasks), dtype=torch.float64)
    if not rows.blocks:  # nothing is known to be shared: what is left is each task's own
        route.write_update([], ones, verdict.kept)
        return summary.of_weights(tasks, facts, verdict, route, None)
    labels = run.columns.leaves(run.scope.named)
    direction = direction_of(method, rows, verdict.kept, _context(run, facts, verdict, tasks), labels, run.memory)
    route.write_update(direction.update, ones, verdict.kept)
    return summary.of_direction(tasks, facts, verdict, route, direction, _shown(run, route))


def _context(run: Run, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> MethodContext:
    kept = list(verdict.kept)
    return run.context(tuple(tasks[i] for i in kept), facts.among(kept).losses)


def _by_weights(run: Run, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> BalanceResult:
    kept, context = list(verdict.kept), _context(run, facts, verdict, tasks)
    if run.held_out is not None and isinstance(route, Rowwise):
        run.method.learn(run.held_out.alignments(route)[kept], context, run.memory)
        run.held_out = None
    weights = weights_of(run.method, facts.among(kept).gramian, context, run.memory)
    own = weights if run.setup.weighted else task_specific_weights_of(run.method, context, run.memory)
    route.write(scatter(weights, kept, len(tasks)), scatter(own, kept, len(tasks)), kept)
    return summary.of_weights(tasks, facts, verdict, route, weights, _shown(run, route))


def _shown(run: Run, route: Route) -> RowNorms | None:
    """The rows, for whoever asks for `BalanceResult.shares` before the next update."""
    if route.shared and route.rows is not None:
        run.buffers.shown = RowNorms(route.rows)
    return run.buffers.shown
