"""The route of an update on several ranks. What decides between ways is agreed on first, and alike on all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from groupwise.balance.engine.cut import AUTO, cut
from groupwise.balance.engine.held_out import HeldOut, gradient_of
from groupwise.balance.engine.ranks.copies import AtLayer, reduced, require_dense
from groupwise.balance.engine.ranks.features import AtFeatures
from groupwise.balance.engine.ranks.group import NOWHERE, Agreement, Ranks, Reach, propagated, require_everywhere
from groupwise.balance.engine.ranks.parts import Parts
from groupwise.balance.engine.ranks.sharded import Sharded
from groupwise.balance.engine.ranks.weighted import Averaged
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.sequential import passes
from groupwise.balance.engine.run import Run
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.balance.method import JacobianMethod
from groupwise.errors import BalanceError

Losses: TypeAlias = Mapping[str, Tensor]


def route(ranks: Ranks, run: Run, losses: Losses, features: object, scale: Tensor | None) -> tuple[Route, Losses]:
    """The way that the method, the arguments and the moment ask for; what comes back is of the joint batch."""
    at_features = features is not None or run.setup.route == "features"
    with propagated(ranks):
        _require_possible(ranks, run, at_features)
    if not run.needs_rows and not run.accumulated:
        return weighing(ranks, run, losses, scale)
    if at_features and not run.accumulated and run.held_out is None:
        return _at_features(ranks, run, losses, AUTO if features is None else features, scale)
    if ranks.parts is None:
        return _of_copies(ranks, run, losses, scale)
    return _of_parts(ranks, ranks.parts, run, losses, scale)


def _require_possible(ranks: Ranks, run: Run, at_features: bool) -> None:
    """Raise `BalanceError` for what one process can and several cannot."""
    if run.setup.route == "gramian":
        raise BalanceError('route="gramian" is not there on several ranks; "sequential" and "features" are')
    if at_features and (ranks.parts is not None or isinstance(run.method, JacobianMethod)):
        where = "under fully_shard" if ranks.parts is not None else f"for {run.method.name} on several ranks"
        raise BalanceError(f"the features route is not there {where}: leave out features=")
    if run.scope.layer is not None and ranks.parts is not None:
        raise BalanceError("at= is not there under fully_shard: without it, all that is shared is looked at")


def weighing(ranks: Ranks, run: Run, losses: Losses, scale: Tensor | None) -> tuple[Route, Losses]:
    """One weighted backward, of a method that looks at losses."""
    with propagated(ranks):
        run.find_broken(losses, scale)
        task_graph = None if run.setup.weighted else run.task_graph(losses, scale)
    agreed = _agreed(ranks, run, losses)
    return _averaged(ranks, run, agreed, losses, scale, task_graph), agreed.losses


def accumulate(ranks: Ranks, run: Run, losses: Losses, scale: Tensor | None) -> None:
    """Keep the gradients of a micro-batch: this rank's own, or its parts of the joint ones."""
    if ranks.parts is None:
        run.find_broken(losses, scale)
        run.accumulated = run.accumulated.with_rows(losses, passes(run.task_graph(losses, scale)), run.broken)
    else:
        _take(ranks.parts, run, _everywhere(ranks, run, losses, scale), scale)


def held_out(ranks: Ranks, run: Run, losses: Losses) -> HeldOut:
    """The gradient of the joint held-out batch."""
    if ranks.parts is not None:
        raise BalanceError("learn() is not there under fully_shard: it compares whole gradients, as DDP has them")
    with propagated(ranks):
        task_graph = run.task_graph(losses, None)
    agreed = ranks.agree(losses, _reach(task_graph), bool(task_graph.graph.sparse))
    if agreed.sparse:
        raise BalanceError("learn() does not average sparse gradients over ranks: use sparse=False")
    shares = coefficients(run, agreed.tasks) / torch.tensor(agreed.counts)
    found = gradient_of(losses, shares[[agreed.tasks.index(task) for task in losses]])
    sums = {leaf: found.pop(leaf) if leaf in found else torch.zeros_like(leaf) for leaf in agreed.reach}
    return HeldOut({**found, **dict(ranks.add_all(sums))})


def coefficients(run: Run, tasks: Sequence[str]) -> Tensor:
    """[t] of the held-out losses. Raises `BalanceError` for a method that learns nothing from them."""
    found = run.method.held_out(tasks)
    if found is None:
        raise BalanceError(f"{run.method.name} learns nothing from held-out losses; AutoLambda does")
    return found


def means(ranks: Ranks, losses: Mapping[str, float]) -> dict[str, float]:
    """The mean of each task's loss over the ranks that have it."""
    told = {task: torch.tensor(loss, dtype=torch.float64) for task, loss in losses.items()}
    return {task: float(loss) for task, loss in ranks.agree(told).losses.items()}


def _of_copies(ranks: Ranks, run: Run, losses: Losses, scale: Tensor | None) -> tuple[Route, Losses]:
    with propagated(ranks):
        task_graph = run.task_graph(losses, scale)
        run.find_broken(losses, scale)
        pending = bool(run.accumulated)
        if pending:
            run.accumulated = run.accumulated.with_rows(losses, passes(task_graph), run.broken)
            ranks.broken = run.accumulated.broken
        rows = run.accumulated.by_task() if pending else {}
    sums, reach = (run.accumulated.losses, rows) if pending else (losses, _reach(task_graph))
    agreed = _agreed(ranks, run, sums, reach, bool(task_graph.graph.sparse))
    if pending:
        return reduced(ranks, agreed, rows.items(), run.buffers, _columns(run, agreed)), agreed.losses
    if run.due(agreed.tasks) and run.scope.layer is None:
        return reduced(ranks, agreed, passes(task_graph), run.buffers, _columns(run, agreed)), agreed.losses
    weighted = _averaged(ranks, run, agreed, losses, scale, task_graph)
    if run.scope.layer is None or not run.due(agreed.tasks):
        return weighted, agreed.losses
    return AtLayer(ranks, agreed, task_graph, run.scope.layer, run.buffers, weighted), agreed.losses


def _at_features(
    ranks: Ranks, run: Run, losses: Losses, features: object, scale: Tensor | None
) -> tuple[Route, Losses]:
    with propagated(ranks):
        task_graph = run.task_graph(dict(sorted(losses.items())), scale)
        run.find_broken(losses, scale)
        parted, edges = cut(task_graph, features)
    agreed = _agreed(ranks, run, losses, _reach(task_graph), bool(task_graph.graph.sparse))
    if not run.due(agreed.tasks):
        return _averaged(ranks, run, agreed, losses, scale, task_graph), agreed.losses
    require_dense(agreed)
    require_everywhere(ranks, agreed, "for features on several ranks", "leave out features=")
    return AtFeatures(ranks, agreed, parted, edges), agreed.losses


def _of_parts(ranks: Ranks, parts: Parts, run: Run, losses: Losses, scale: Tensor | None) -> tuple[Route, Losses]:
    ordered = _everywhere(ranks, run, losses, scale)
    if not run.accumulated and not run.due(tuple(ordered)):
        return weighing(ranks, run, losses, scale)
    _take(parts, run, ordered, scale)
    sums = run.accumulated.losses
    joint = ranks.agree(sums).losses
    rows = run.accumulated.finalize(run.accumulated.shared(None))
    return Sharded(ranks, parts, rows, run.accumulated.passes), {task: joint[task] for task in sums}


def _take(parts: Parts, run: Run, losses: Losses, scale: Tensor | None) -> None:
    if run.undo is not None:
        run.undo.remember(parts.whole)
    run.accumulated = run.accumulated.with_rows(losses, parts.passes(run.task_graph(losses, scale)), frozenset())


def _everywhere(ranks: Ranks, run: Run, losses: Losses, scale: Tensor | None) -> Losses:
    """The losses in the order of all ranks. Raises `BalanceError`, on every rank, for a task that some rank lacks."""
    with propagated(ranks):
        run.task_graph(losses, scale)  # what cannot be balanced is found before any rank waits in a backward
    agreed = _agreed(ranks, run, losses)
    return {task: losses[task] for task in agreed.tasks}


def _agreed(ranks: Ranks, run: Run, losses: Losses, reach: Reach = NOWHERE, sparse: bool = False) -> Agreement:
    agreed = ranks.agree(losses, reach, sparse)
    run.expect(agreed.tasks)
    run.broken = agreed.broken
    if ranks.parts is not None:
        require_everywhere(ranks, agreed, "under fully_shard", "DistributedDataParallel")
    return agreed


def _columns(run: Run, agreed: Agreement) -> tuple[Tensor, ...] | None:
    """Those of a Jacobian method, which may remember them."""
    return run.columns_of([leaf for leaf, tasks in agreed.reach.items() if len(tasks) > 1], len(agreed.tasks))


def _reach(task_graph: TaskGraph) -> Reach:
    return {task: task_graph.graph.reached(i) for i, task in enumerate(task_graph.tasks)}


def _averaged(
    ranks: Ranks, run: Run, agreed: Agreement, losses: Losses, scale: Tensor | None, task_graph: TaskGraph | None
) -> Averaged:
    apart = None if run.setup.weighted else task_graph
    return Averaged(ranks, agreed, losses, scale, apart, run.scope.candidates)
