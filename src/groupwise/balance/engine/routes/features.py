"""Features: the heads' gradients at the shared representation, and one backward through the trunk.

With z the features that the heads read, D [t, |z|] the rows dL_i/dz and T the Jacobian of the trunk, the gradients of
the shared parameters are D T. The method sees D instead, and the trunk runs one backward from w' D: F + B_h + B_t
whatever t is, and t times |z| of memory.

This is the upper bound of Sener and Koltun (2018, NeurIPS): the update is a true combination w of the tasks' gradients,
but w is chosen by their inner products at z, which differ from those at the parameters by T T'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from groupwise.balance.engine.routes import heads
from groupwise.balance.engine.routes.route import Route, TaskSpecificGradients
from groupwise.balance.engine.rows import Buffers, Rows, Update
from groupwise.balance.engine.task_graph import TaskGraph, translated


@final
class Features(Route):
    """Rows at the features.

    Args:
        task_graph: what to balance; its own tensors lie above the features, or below them under one task alone.
        features: the places where the tasks part.
        buffers: the memory of the rows.
        found: whether the features were found in the graph rather than given.
    """

    def __init__(self, task_graph: TaskGraph, features: Sequence[GradientEdge], buffers: Buffers, found: bool) -> None:
        self._inputs = [leaf for leaf in task_graph.graph.leaves if leaf not in task_graph.own]
        self._found = found
        self._rows, self._edges, self._own = probe(task_graph, features, buffers)

    @property
    def words(self) -> str:
        what = "the narrowest cut of the graph" if self._found else f"{len(self._edges)} given"
        entries = sum(block.matrix.shape[1] for block in self._rows.blocks)
        return (
            f"features ({what}, {entries:,} entries): the heads' backwards, and one through the trunk; "
            "the weights are those of the upper bound, the update is exact for them"
        )

    @property
    def written(self) -> Iterable[Tensor]:
        return (*self._inputs, *self._own.found)

    @property
    def rows(self) -> Rows:
        return self._rows

    def task_specific_sums(self) -> Tensor:
        return self._own.sums()

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        self.write_update(self._rows.combined(weights), own, kept)

    def write_update(self, update: Iterable[Update], own: Tensor, kept: Sequence[int]) -> None:
        if kept and self._inputs:
            backward(self._edges, update, self._inputs)
        self._own.write(own, kept)


def probe(
    task_graph: TaskGraph, features: Sequence[GradientEdge], buffers: Buffers, share: float = 1.0
) -> tuple[Rows, dict[Tensor, GradientEdge], TaskSpecificGradients]:
    """The rows at the features, times a number; which columns are those of which feature; the task-only gradients."""
    count, own = len(task_graph.tasks), TaskSpecificGradients(task_graph.losses)
    gathered: list[dict[int, Tensor]] = [{} for _ in features]
    for task, at_features, alone in heads.probe(task_graph, features):
        for place, gradient in enumerate(at_features):
            if gradient is not None:
                gathered[place][task] = gradient if share == 1 else gradient * share
        for leaf, gradient in alone:
            own.put(task, leaf, gradient)
    found = {torch.empty_like(next(iter(by_task.values()))): place for place, by_task in enumerate(gathered) if by_task}
    rows = buffers.rows([*found], count)
    for block in rows.blocks:
        block.fill_all({slot.leaf: gathered[found[slot.leaf]] for slot in block.slots})
    return rows, {like: features[place] for like, place in found.items()}, own


def backward(edges: Mapping[Tensor, GradientEdge], update: Iterable[Update], inputs: Sequence[Tensor]) -> None:
    """One backward from the features on, into the tensors that are not a task's own."""
    starts = {edges[like]: piece for like, piece in update}
    with translated():
        torch.autograd.backward([*starts], [*starts.values()], inputs=inputs)
