"""Micro-batches under a loss method: one weighted backward each, at the cost of the plain sum.

The weights are those that the method gives to the micro-batch's own losses with its memory as it was when the update
began. For methods whose weights come from the past (static, uncertainty, DWA, random) that is exact; those that read
the losses of the moment (log sum, STCH) weigh each micro-batch by its own. The memory moves once per update, on the
sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from groupwise.balance.engine import joint, summary
from groupwise.balance.engine.direction import own_weights_of, spread, weights_of
from groupwise.balance.engine.facts import transfer
from groupwise.balance.engine.finite import Facts, Verdict
from groupwise.balance.engine.pending import Pending
from groupwise.balance.engine.ranks.told import require_told
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.run import Run, copied
from groupwise.balance.result import BalanceResult


def add(run: Run, losses: Mapping[str, Tensor], scale: Tensor | None) -> Route:
    """Write the gradient of one micro-batch, and add its losses."""
    require_told(run.setup.ranks, run.setup.alone)
    ranks = run.setup.ranks
    route: Route
    if ranks is None:
        route = run.setup.weighing(losses, scale)
    else:
        route, losses = joint.weighing(ranks, run, losses, scale)
    facts, _ = transfer(losses, route, scale)
    tasks = tuple(losses)
    verdict = run.judged(tasks, facts, scale is not None)
    kept = list(verdict.kept)
    if kept:
        seen = run.seen(tuple(tasks[i] for i in kept), facts.losses[kept])
        scratch = copied(run.memory)
        weights = weights_of(run.method, None, seen, scratch)
        own = weights if run.setup.weighted else own_weights_of(run.method, seen, scratch)
        route.write(spread(weights, kept, len(tasks)), spread(own, kept, len(tasks)), kept)
    run.pending.add_losses({tasks[i]: facts.losses[i] for i in kept})
    run.pending.skipped.update(verdict.skipped)
    run.pending.passes += 1
    return route


def complete(run: Run, losses: Mapping[str, Tensor], scale: Tensor | None) -> BalanceResult:
    """Write the last micro-batch; let the method learn from the sums."""
    route = add(run, losses, scale)
    pending, run.pending = run.pending, Pending()
    tasks = tuple(pending.losses)
    sums = torch.stack([*pending.losses.values()]) if tasks else torch.zeros(0, dtype=torch.float64)
    facts = Facts(sums, None, None)
    verdict = Verdict(tuple(range(len(tasks))), pending.skipped)
    if not tasks:
        return summary.of_nothing(dict.fromkeys(pending.skipped, torch.nan), verdict, route)
    weights = weights_of(run.method, None, run.seen(tasks, sums), run.memory)
    run.stepped(tasks)
    return summary.of_weights(tasks, facts, verdict, route, weights)
