"""A weighted backward on several ranks.

DDP's hooks average over *all* ranks, so the weight of a task that c of W ranks have is W / c. They also wait for every
rank, and for every parameter that the forward led to. Where that cannot be had (a task is skipped, a rank has none, or
ranks with different tasks would sort heads from trunk differently), all ranks leave the hooks alone: each takes its
gradients with `torch.autograd.grad`, and the weighted sums are added up in one message.

Under `fully_shard` every rank has every task, so one and the same backward runs on all of them in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from groupwise._spelling import counted
from groupwise.balance.engine import accumulate_grad
from groupwise.balance.engine.ranks.agreement import Agreement, Ranks
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.weighted import Weighted
from groupwise.balance.engine.rows import Update
from groupwise.balance.engine.task_graph import TaskGraph, task_graph_of
from groupwise.errors import BalanceError


@final
class Averaged(Route):
    """No look; it takes the weights of all tasks of all ranks.

    Args:
        ranks: the processes.
        agreed: what they know of this batch.
        losses: those of this rank.
        scale: the scaler's, or None.
        task_graph: their graph, sorted, where task-only tensors may have a factor of their own; None where none has.
        candidates: all that may count as shared; None for everything.
    """

    def __init__(
        self,
        ranks: Ranks,
        agreed: Agreement,
        losses: Mapping[str, Tensor],
        scale: Tensor | None,
        task_graph: TaskGraph | None,
        candidates: frozenset[Tensor] | None,
    ) -> None:
        self._ranks = ranks
        self._agreed = agreed
        self._losses = losses
        self._scale = scale
        self._task_graph = task_graph
        self._candidates = candidates
        self._places = [agreed.tasks.index(task) for task in losses]
        self._by_hooks = True

    @property
    def words(self) -> str:
        over = f"averaged over {counted(self._ranks.group.size, 'rank')}"
        if not self._by_hooks:
            return f"weighted: a backward for each task that is not skipped, their weighted sums {over}; exact"
        who = "DistributedDataParallel" if self._ranks.parts is None else "fully_shard"
        return f"weighted: one backward of the weighted sum, {over} by {who}; exact"

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        if not kept:
            return
        self._by_hooks = self._ranks.parts is not None or not self._hooks_would_wait(weights, own, kept)
        if not self._by_hooks:
            self._add_up(weights.tolist(), own.tolist(), kept)
            return
        counts = torch.tensor([self._agreed.counts[place] for place in self._places], dtype=torch.float64)
        factors = self._ranks.group.size / counts
        route = Weighted(self._losses, self._scale, self._task_graph)
        here = [i for i, place in enumerate(self._places) if place in kept]
        route.write(weights[self._places] * factors, own[self._places] * factors, here)

    def _hooks_would_wait(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> bool:
        """Whether one backward through DDP's hooks will not do; the same on all ranks."""
        if self._agreed.idle or len(kept) < len(self._agreed.tasks):
            return True
        apart = self._task_graph is not None and not torch.equal(weights, own)
        uneven = any(count < self._ranks.group.size for count in self._agreed.counts)
        return apart and (uneven or not bool(own.all()))

    def _add_up(self, weights: Sequence[float], own: Sequence[float], kept: Sequence[int]) -> None:
        task_graph = self._task_graph or task_graph_of(self._losses, self._candidates, self._scale)
        reach = {task: task_graph.graph.reached(i) for i, task in enumerate(task_graph.tasks)}
        agreed = self._ranks.agree(self._losses, reach, bool(task_graph.graph.sparse))
        if agreed.sparse:
            raise BalanceError(
                "a task is skipped or absent on a rank, and there are sparse gradients, which are averaged by "
                'DistributedDataParallel alone: use sparse=False, or nonfinite="skip_step" and every task on every rank'
            )
        needed = min(2, len(agreed.tasks))
        shared = {leaf for leaf, tasks in agreed.reach.items() if len(tasks) >= needed}
        reached = [leaf for leaf, tasks in agreed.reach.items() if tasks.intersection(kept)]
        total = {leaf: torch.zeros_like(leaf, requires_grad=False) for leaf in reached}
        elsewhere: list[Update] = []
        for place, leaf, gradient in self._found(task_graph, kept):
            share = (weights if leaf in shared else own)[place] / agreed.counts[place]
            if leaf in total:
                total[leaf].add_(gradient, alpha=share)
            else:
                elsewhere.append((leaf, gradient * (share * self._ranks.group.size)))
        accumulate_grad.add(self._ranks.group.add_all(total))
        for update in elsewhere:
            accumulate_grad.add([update])

    def _found(self, task_graph: TaskGraph, kept: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        for i, place in enumerate(self._places):
            if place in kept:
                leaves = task_graph.graph.reached(i)
                for leaf, gradient in zip(leaves, task_graph.gradient(i, leaves), strict=True):
                    if gradient is not None:
                        yield place, leaf, gradient
