"""Features on several ranks: the joint batch's features are those of all ranks, one below the other.

With L_i the mean of a task's losses over W ranks, its gradient at one rank's features is 1/W times the rank's own. So
the Gramian at the joint features is a sum over ranks, one message of t^2 + t numbers; each rank sends its part of
the combination through its own trunk, and what arrives at the parameters is added up in one message.

Every rank needs every task, or ranks would take different tensors for heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from groupwise.balance.engine import accumulate_grad
from groupwise.balance.engine.ranks.agreement import Agreement, Ranks
from groupwise.balance.engine.routes.features import probe
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.sharded_rows import products
from groupwise.balance.engine.rows import Buffers, Update
from groupwise.balance.engine.task_graph import TaskGraph, translated


@final
class AveragedFeatures(Route):
    """Rows at this rank's features; the Gramian of all.

    Args:
        ranks: the processes, which all have all tasks.
        agreed: what they know of this batch.
        task_graph: this rank's losses, in the order agreed on, cut at the features.
        edges: the features.
        buffers: the memory of the rows.
    """

    def __init__(
        self,
        ranks: Ranks,
        agreed: Agreement,
        task_graph: TaskGraph,
        edges: Sequence[GradientEdge],
        buffers: Buffers,
    ) -> None:
        self._ranks = ranks
        self._reach = agreed.reach
        self._count = len(task_graph.tasks)
        self._inputs = [leaf for leaf in task_graph.graph.leaves if leaf not in task_graph.own]
        self._rows, self._edges, self._own = probe(task_graph, edges, buffers, 1 / ranks.group.size)
        table = sum(products(block.matrix).to(ranks.like.device) for block in self._rows.blocks)
        self._facts = ranks.group.add(
            torch.cat([torch.as_tensor(table).flatten(), self._own.sums().to(ranks.like.device)])
        )

    @property
    def words(self) -> str:
        entries = sum(block.matrix.shape[1] for block in self._rows.blocks)
        return (
            f"features ({len(self._edges)}, {entries:,} entries on each of {self._ranks.group.size} ranks): the heads' "
            "backwards, and one through the trunk, added up; the weights are those of the upper bound, the update is "
            "exact for them"
        )

    def gramian(self) -> Tensor:
        return self._facts[: self._count**2].view(self._count, self._count)

    def task_specific_sums(self) -> Tensor:
        return self._facts[self._count**2 :]

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        self._rows.zero_rows([task for task in range(self._count) if task not in kept])
        starts = {self._edges[like]: piece for like, piece in self._rows.combined(weights)}
        total = {leaf: torch.zeros_like(leaf, requires_grad=False) for leaf in self._reached(kept)}
        elsewhere: list[Update] = []
        for leaf, gradient in self._found(starts, own, kept):
            if leaf in total:
                total[leaf] += gradient
            else:  # no copy of it is known: scaled as DDP's hooks would find it
                elsewhere.append((leaf, gradient * self._ranks.group.size))
        accumulate_grad.add(self._ranks.group.add_all(total))
        for update in elsewhere:
            accumulate_grad.add([update])

    def _reached(self, kept: Sequence[int]) -> list[Tensor]:
        return [leaf for leaf, tasks in self._reach.items() if tasks.intersection(kept)]

    def _found(self, starts: Mapping[GradientEdge, Tensor], own: Tensor, kept: Sequence[int]) -> Iterator[Update]:
        with translated():
            found = torch.autograd.grad([*starts], self._inputs, [*starts.values()], allow_unused=True)
        for leaf, gradient in zip(self._inputs, found, strict=True):
            if gradient is not None:
                yield leaf, gradient
        for leaf, by_task in self._own.found.items():
            for task in sorted(by_task.keys() & set(kept)):
                yield leaf, by_task[task] * (float(own[task]) / self._ranks.group.size)
