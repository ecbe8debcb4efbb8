"""One update: take the gradients, bring the facts to the CPU, judge, ask, write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from groupwise.balance.engine import joint, summary
from groupwise.balance.engine.direction import direction_of, own_weights_of, spread, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.pending import Pending
from groupwise.balance.engine.problem import Problem
from groupwise.balance.engine.ranks.told import require_told
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.routes.sequential import passes, sequential
from groupwise.balance.engine.run import Run
from groupwise.balance.method import JacobianMethod, Seen
from groupwise.balance.methods import AutoLambda
from groupwise.balance.result import BalanceResult
from groupwise.errors import BalanceError

Losses: TypeAlias = Mapping[str, Tensor]


def complete(run: Run, losses: Losses, features: object, scale: Tensor | None) -> BalanceResult:
    """The update of these losses and of whatever is pending."""
    run.rows = None
    require_told(run.setup.ranks, run.setup.alone)
    ranks = run.setup.ranks
    if ranks is None:
        route, sums = _route(run, losses, features, scale)
    else:
        route, sums = joint.route(ranks, run, losses, features, scale)
    run.pending = Pending()
    facts, s = transfer(sums, route, scale)
    tasks = tuple(sums)
    verdict = run.judged(tasks, facts, scale is not None)
    if verdict.overflow:
        ones = torch.ones(len(tasks), dtype=torch.float64)
        route.write(ones, ones, verdict.kept)
    if verdict.overflow or not verdict.kept:
        return summary.of_nothing(dict(zip(tasks, facts.losses.tolist(), strict=True)), verdict, route)
    if route.rows is not None:
        run.rows, route.rows.scale = route.rows, s
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
    require_told(ranks, run.setup.alone)
    if ranks is not None:
        joint.accumulate(ranks, run, losses, scale)
    else:
        stated = run.setup.problem(losses, scale)
        with _whole(stated):
            run.pending.add(losses, passes(stated))


def _route(run: Run, losses: Losses, features: object, scale: Tensor | None) -> tuple[Route, Losses]:
    """Take the gradients along the way that the method, the arguments and the moment ask for; the losses of all."""
    setup = run.setup
    if not run.needs_rows or (not run.pending and not run.due(tuple(losses))):
        return setup.weighing(losses, scale), losses
    stated = setup.problem(losses, scale)
    with _whole(stated):
        if run.pending:
            run.pending.add(losses, passes(stated))
            return run.pending.settled(setup.candidates), run.pending.losses
        if run.held_out is not None:
            return sequential(stated, run.buffers, None), losses
        columns = run.columns.of(stated.shared, len(stated.tasks)) if isinstance(run.method, JacobianMethod) else None
        return setup.looking(stated, features, run.buffers, columns), losses


@contextmanager
def _whole(stated: Problem) -> Iterator[None]:
    """Raise `BalanceError` where the leaves are passing copies; a root that was never resharded shows it afterwards."""
    if not stated.graph.sharded and not _freed(stated):
        yield
    if stated.graph.sharded or _freed(stated):
        raise BalanceError(
            "the parameters belong to fully_shard, and their gradients to its copies, which are gone after a backward: "
            "pass parameters= the outermost fully_shard module"
        )


def _freed(stated: Problem) -> bool:
    plain = (leaf for leaf in stated.graph.leaves if leaf.numel() and leaf.layout == torch.strided)
    return any(leaf.untyped_storage().size() == 0 for leaf in plain)


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
    direction = direction_of(method, rows, verdict.kept, _seen(run, facts, verdict, tasks), run.memory)
    route.write_update(direction.update, ones, verdict.kept)
    return summary.of_direction(tasks, facts, verdict, route, direction)


def _seen(run: Run, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> Seen:
    if len(verdict.kept) == len(tasks):
        return run.seen(tasks, facts.losses)
    kept = list(verdict.kept)
    return run.seen(tuple(tasks[i] for i in kept), facts.among(kept).losses)


def _by_weights(run: Run, route: Route, facts: Facts, verdict: Verdict, tasks: tuple[str, ...]) -> BalanceResult:
    kept, seen = list(verdict.kept), _seen(run, facts, verdict, tasks)
    if run.held_out is not None and isinstance(route, Rowwise) and isinstance(run.method, AutoLambda):
        run.method.learn(run.held_out.alignments(route)[kept], seen, run.memory)
        run.held_out = None
    weights = weights_of(run.method, facts.among(kept).gramian, seen, run.memory)
    own = weights if run.setup.weighted else own_weights_of(run.method, seen, run.memory)
    route.write(spread(weights, kept, len(tasks)), spread(own, kept, len(tasks)), kept)
    return summary.of_weights(tasks, facts, verdict, route, weights)
