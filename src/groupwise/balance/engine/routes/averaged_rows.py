"""Rows of the joint batch where every rank has a copy of the model (`DistributedDataParallel`).

`torch.autograd.grad` does not run DDP's hooks, so rows are local. The gradient of a task's mean loss is the mean of the
ranks' gradients, over the ranks whose batch had the task; so rows are averaged first, and the Gramian, the weights and
the update that follow are those of the joint batch, computed alike on every rank, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from groupwise.balance.engine.ranks.agreement import Agreement, Ranks
from groupwise.balance.engine.routes.route import Route, TaskSpecificGradients, entries
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import Buffers, Rows
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.errors import BalanceError

Passes = Iterable[tuple[str, Mapping[Tensor, Tensor]]]


def averaged_rows(
    ranks: Ranks, agreed: Agreement, passes: Passes, buffers: Buffers, columns: Sequence[Tensor] | None = None
) -> Rowwise:
    """The joint batch's rows, from the local gradients of each local task.

    Args:
        ranks: the processes.
        agreed: what they know of this batch.
        passes: each local task with its gradients.
        buffers: the memory of the rows.
        columns: the shared tensors and their order; None for those of this batch.
    """
    require_dense(agreed)
    if columns is None:
        columns = [leaf for leaf, tasks in agreed.reach.items() if len(tasks) >= min(2, len(agreed.tasks))]
    shared = {leaf: agreed.reach.get(leaf, set()) for leaf in columns}
    lone = {leaf: tasks for leaf, tasks in agreed.reach.items() if leaf not in shared}
    rows = _zeros(buffers, [*shared], len(agreed.tasks))
    own = TaskSpecificGradients(agreed.losses)
    kept = {leaf: torch.zeros_like(leaf, requires_grad=False) for leaf in lone}
    for task, found in passes:
        place = agreed.tasks.index(task)
        share = 1 / agreed.counts[place]
        targets = {**dict(_views(rows, place)), **kept}
        for leaf in found.keys() & targets.keys():
            targets[leaf].add_(found[leaf], alpha=share)
        elsewhere = {leaf: gradient for leaf, gradient in found.items() if leaf not in targets}
        for leaf, gradient in elsewhere.items():  # no copy of it is known: scaled as DDP's hooks would find it
            own.put(place, leaf, gradient * (share * ranks.group.size))
        for leaf in [*(found.keys() & targets.keys())][:1]:
            _spoil(targets[leaf], elsewhere.values())
    _add(ranks, rows)
    for leaf, gradient in ranks.group.add_all(kept):
        own.put(next(iter(lone[leaf])), leaf, gradient)
    words = f"sequential on {ranks.group.size} ranks: one backward for each task, rows averaged over the ranks; exact"
    return Rowwise(rows, shared, own, words)


@final
class AveragedLayer(Route):
    """Rows of one layer, averaged over the ranks, and a weighted backward.

    Raises `BalanceError`, on every rank, for a task that does not reach the layer on any.
    """

    def __init__(
        self,
        ranks: Ranks,
        agreed: Agreement,
        task_graph: TaskGraph,
        layer: Sequence[Tensor],
        buffers: Buffers,
        write: Route,
    ) -> None:
        require_dense(agreed)
        for place, task in enumerate(agreed.tasks):
            if not any(place in agreed.reach.get(leaf, ()) for leaf in layer):
                raise BalanceError(f"task {task!r} does not reach the layer at at=: name one that every task reaches")
        self._write = write
        self._rows = _zeros(buffers, layer, len(agreed.tasks))
        for i, task in enumerate(task_graph.tasks):
            leaves = [leaf for leaf in layer if task_graph.graph.leaves.get(leaf, 0) >> i & 1]
            found = dict(zip(leaves, task_graph.gradient(i, leaves), strict=True))
            place = agreed.tasks.index(task)
            for leaf, view in _views(self._rows, place):
                if (gradient := found.get(leaf)) is not None:
                    view.add_(gradient, alpha=1 / agreed.counts[place])
        _add(ranks, self._rows)

    @property
    def words(self) -> str:
        return f"layer: a backward for each task to the layer at at=, averaged over the ranks; then {self._write.words}"

    @property
    def rows(self) -> Rows:
        return self._rows

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        self._write.write(weights, own, kept)


def _zeros(buffers: Buffers, leaves: Sequence[Tensor], count: int) -> Rows:
    rows = buffers.rows(leaves, count)
    rows.zero_rows(range(count))
    return rows


def _views(rows: Rows, task: int) -> Iterator[tuple[Tensor, Tensor]]:
    for block in rows.blocks:
        yield from zip((slot.leaf for slot in block.slots), block.views(task), strict=True)


def _add(ranks: Ranks, rows: Rows) -> None:
    for block in rows.blocks:
        ranks.group.add(block.matrix)


def _spoil(target: Tensor, gradients: Iterable[Tensor]) -> None:
    """Make one entry nan if a gradient that this rank alone knows is not finite, so that all ranks see it."""
    for gradient in gradients:
        if gradient.numel():
            target.view(-1)[0].add_(torch.linalg.vector_norm(entries(gradient), math.inf).to(target) * 0)


def require_dense(agreed: Agreement) -> None:
    """Raise `BalanceError`, on every rank, where one has sparse gradients."""
    if agreed.sparse:
        raise BalanceError(
            "there are sparse gradients, whose rows are not averaged over ranks: use sparse=False, or a loss method"
        )
