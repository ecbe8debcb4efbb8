"""Micro-batches under a method whose weights are known beforehand: one weighted backward each, at the plain sum's cost.

Of a method with the property `SEPARATE` (static weights, uncertainty) a task's weight comes from its own past, so it
is the same for every micro-batch, and the update is that of the joint batch. The memory moves once per update, on the
sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from groupwise.balance.engine import distributed, summary
from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.direction import scatter, task_specific_weights_of, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.ranks.process_group import require_process_group
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.run import Run
from groupwise.balance.engine.update import weighing
from groupwise.balance.result import BalanceResult


def add(run: Run, losses: Mapping[str, Tensor], scale: Tensor | None, last: bool = False) -> Route:
    """Write the gradient of one micro-batch, and add its losses."""
    require_process_group(run.setup.ranks, run.setup.alone)
    ranks, here = run.setup.ranks, losses
    route: Route
    run.find_broken(losses, scale)
    if ranks is None:
        route = weighing(run, losses, scale)
    else:
        route, losses = distributed.weighing(ranks, run, losses, scale)
    facts, s = transfer(losses, route, scale)
    tasks = tuple(losses)
    verdict = run.judged(tasks, facts, None if scale is None else s, last)
    kept = list(verdict.kept)
    if kept:
        context = run.context(tuple(tasks[i] for i in kept), facts.losses[kept])
        scratch = run.memory.copy()
        weights = weights_of(run.method, None, context, scratch)
        own = weights if run.setup.weighted else task_specific_weights_of(run.method, context, scratch)
        run.remember_grads(here, route)
        route.write(scatter(weights, kept, len(tasks)), scatter(own, kept, len(tasks)), kept)
    run.accumulated = run.accumulated.written({tasks[i]: facts.losses[i] for i in kept}, verdict.skipped, run.broken)
    return route


def complete(run: Run, losses: Mapping[str, Tensor], scale: Tensor | None) -> BalanceResult:
    """Write the last micro-batch; let the method learn from the sums."""
    run.buffers.shown = None
    route = add(run, losses, scale, last=True)
    sums, run.accumulated = run.accumulated, Accumulated()
    tasks = tuple(sums.losses)
    verdict = Verdict(tuple(range(len(tasks))), dict(sums.skipped))
    if not tasks:
        return summary.of_nothing(dict.fromkeys(sums.skipped, torch.nan), verdict, route)
    facts = Facts(torch.stack([*sums.losses.values()]), None, None)
    weights = weights_of(run.method, None, run.context(tasks, facts.losses), run.memory)
    run.stepped(tasks)
    return summary.of_weights(tasks, facts, verdict, route, weights)
