"""One update: look, bring the facts to the CPU, judge, ask, write. Nothing is kept before the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from groupwise.balance.engine import joint, summary
from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.cut import AUTO, cut
from groupwise.balance.engine.direction import direction_of, own_weights_of, spread, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.problem import Problem
from groupwise.balance.engine.ranks.process_group import require_process_group
from groupwise.balance.engine.routes.features import Features
from groupwise.balance.engine.routes.looked import Batched, Layer
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.routes.sequential import passes, sequential
from groupwise.balance.engine.routes.weighted import Weighted
from groupwise.balance.engine.rows import Buffers, RowNorms
from groupwise.balance.engine.run import Run
from groupwise.balance.method import JacobianMethod, Seen
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError

Losses: TypeAlias = Mapping[str, Tensor]


def complete(run: Run, losses: Losses, features: object, scale: Tensor | None) -> BalanceResult:
    """The update of these losses and of whatever is accumulated."""
    run.buffers.shown = None
    require_process_group(run.setup.ranks, run.setup.alone)
    route, sums = _look(run, losses, features, scale)
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
        route.rows.blank([i for i in range(len(tasks)) if i not in verdict.kept])
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
        joint.accumulate(ranks, run, losses, scale)
        return
    run.find_broken(losses, scale)
    stated = run.problem(losses, scale)
    _require_whole(stated)
    run.accumulated = run.accumulated.with_rows(losses, passes(stated), run.broken)
    _require_whole(stated)


def _look(run: Run, losses: Losses, features: object, scale: Tensor | None) -> tuple[Route, Losses]:
    """Take the gradients along the way that the method, the arguments and the moment ask for; the losses of all."""
    ranks = run.setup.ranks
    if ranks is not None:
        return joint.route(ranks, run, losses, features, scale)
    run.find_broken(losses, scale)
    if not run.accumulated and (not run.needs_rows or not run.due(tuple(losses))):
        return weighing(run, losses, scale), losses
    stated = run.problem(losses, scale)
    _require_whole(stated)
    route, sums = _rows(run, losses, stated, features)
    _require_whole(stated)
    return route, sums


def weighing(run: Run, losses: Losses, scale: Tensor | None) -> Weighted:
    """The route for weights that need no look."""
    return Weighted(losses, scale, None if run.setup.weighted else run.problem(losses, scale))


def _rows(run: Run, losses: Losses, stated: Problem, features: object) -> tuple[Route, Losses]:
    if run.accumulated:
        whole = run.accumulated.with_rows(losses, passes(stated), run.broken)
        run.accumulated, run.broken = Accumulated(), whole.broken
        shared = whole.shared(run.scope.candidates)
        columns = run.columns_of(shared, len(whole.losses))
        return whole.finalize(shared if columns is None else columns), whole.losses
    if run.held_out is not None:
        return sequential(stated, run.buffers, None), losses
    return _looking(run, stated, features), losses


def _looking(run: Run, stated: Problem, features: object) -> Route:
    """The route that looks at gradients; `cost="auto"` is decided here."""
    cost, layer = run.setup.cost, run.scope.layer
    columns = run.columns_of(stated.shared, len(stated.tasks))
    if not stated.shared and features is None and layer is None:
        return sequential(stated, run.buffers, columns)  # a trunk that is frozen: there is nothing to look at
    if features is not None or cost == "features":
        place = AUTO if features is None else features
        return Features(*cut(stated, place), isinstance(place, str))
    if layer is not None:
        return Layer(stated, layer)
    if cost == "gramian" or (cost == "auto" and columns is None and not _fit(stated, run.buffers)):
        return Batched(stated)
    return sequential(stated, run.buffers, columns)


def _fit(stated: Problem, buffers: Buffers) -> bool:
    """Whether the rows have a place: they do if they had one before, or if nobody can tell."""
    on_device = [leaf for leaf in stated.shared if leaf.is_cuda]
    if not on_device or buffers.held:
        return True
    device = on_device[0].device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return len(stated.tasks) * sum(leaf.numel() * leaf.element_size() for leaf in on_device) < 0.8 * free


def _require_whole(stated: Problem) -> None:
    """Raise `BalanceError` where the leaves are passing copies; a root that was never resharded shows it afterwards."""
    plain = (leaf for leaf in stated.graph.leaves if leaf.numel() and leaf.layout == torch.strided)
    if stated.graph.sharded or any(leaf.untyped_storage().size() == 0 for leaf in plain):
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
    direction = direction_of(method, rows, verdict.kept, _seen(run, facts, verdict, tasks), labels, run.memory)
    route.write_update(direction.update, ones, verdict.kept)
    return summary.of_direction(tasks, facts, verdict, route, direction, _shown(run, route))


def _seen(run: Run, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> Seen:
    kept = list(verdict.kept)
    return run.seen(tuple(tasks[i] for i in kept), facts.among(kept).losses)


def _by_weights(run: Run, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> BalanceResult:
    kept, seen = list(verdict.kept), _seen(run, facts, verdict, tasks)
    if run.held_out is not None and isinstance(route, Rowwise):
        run.method.learn(run.held_out.alignments(route)[kept], seen, run.memory)
        run.held_out = None
    weights = weights_of(run.method, facts.among(kept).gramian, seen, run.memory)
    own = weights if run.setup.weighted else own_weights_of(run.method, seen, run.memory)
    route.write(spread(weights, kept, len(tasks)), spread(own, kept, len(tasks)), kept)
    return summary.of_weights(tasks, facts, verdict, route, weights, _shown(run, route))


def _shown(run: Run, route: Route) -> RowNorms | None:
    """The rows, for whoever asks for `BalanceResult.shares` before the next update."""
    if route.shared and route.rows is not None:
        run.buffers.shown = RowNorms(route.rows)
    return run.buffers.shown
