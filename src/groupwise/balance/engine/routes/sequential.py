"""Sequential: one backward for each task, its gradients kept as a row.

With t tasks, F the forward, B_h all heads' and B_t the trunk's backward: F + B_h + t B_t, and t rows of memory, which
are kept from step to step. The update is then J' w, which is free. Exact.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from torch import Tensor

from groupwise.balance.engine.routes.route import TaskSpecificGradients
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import Buffers, Rows, block_of
from groupwise.balance.engine.task_graph import TaskGraph

FEW: Final = 2
"""So many tasks get their rows when the graph is gone, which takes more memory than they do, parameter by parameter."""


def sequential(task_graph: TaskGraph, buffers: Buffers, columns: Sequence[Tensor] | None) -> Rowwise:
    """Rows of all shared parameters.

    Args:
        task_graph: what to balance.
        buffers: the memory of the rows.
        columns: the shared tensors and their order; None for those of the graph.
    """
    count = len(task_graph.tasks)
    own = TaskSpecificGradients(task_graph.losses)
    shared = task_graph.shared if columns is None else tuple(columns)
    if columns is None and count <= FEW:
        buffers.clear()
        return _of_few(task_graph, own)
    apart = task_graph.graph.sparse.intersection(shared)
    rows = buffers.rows([leaf for leaf in shared if leaf not in apart], count)
    reach: dict[Tensor, set[int]] = {leaf: set() for leaf in shared}
    sparse: dict[Tensor, dict[int, Tensor]] = {leaf: {} for leaf in shared if leaf in apart}
    for task, (_, found) in enumerate(passes(task_graph)):
        for block in rows.blocks:
            block.fill(task, found)
        for leaf, gradient in found.items():
            if leaf in reach:
                reach[leaf].add(task)
            if leaf in sparse:
                sparse[leaf][task] = gradient
            elif leaf not in reach:
                own.put(task, leaf, gradient)
        found.clear()  # the next backward has its memory
    rows.blocks.extend(block_of(leaf, by_task, count) for leaf, by_task in sparse.items() if by_task)
    return Rowwise(rows, reach, own, _words(count))


def _of_few(task_graph: TaskGraph, own: TaskSpecificGradients) -> Rowwise:
    """The same with nothing but the gradients themselves beside the graph."""
    found, count = [row for _, row in passes(task_graph)], len(task_graph.tasks)
    reach: dict[Tensor, set[int]] = {}
    blocks = []
    for leaf in task_graph.shared:
        gradients = {task: row.pop(leaf) for task, row in enumerate(found) if leaf in row}
        reach[leaf] = set(gradients)
        if gradients:
            blocks.append(block_of(leaf, gradients, count))
    for task, row in enumerate(found):
        for leaf, gradient in row.items():
            own.put(task, leaf, gradient)
    return Rowwise(Rows(count, blocks), reach, own, _words(count))


def _words(count: int) -> str:
    return f"sequential: {count} backwards, one for each task, whose rows are kept; exact"


def passes(task_graph: TaskGraph) -> Generator[tuple[str, dict[Tensor, Tensor]]]:
    """One backward after the other: each task with its gradients. The last one lets the graph go."""
    for i, task in enumerate(task_graph.tasks):
        yield task, _gradients(task_graph, i)


def _gradients(task_graph: TaskGraph, task: int) -> dict[Tensor, Tensor]:
    leaves = task_graph.graph.reached(task)
    grads = task_graph.gradient(task, leaves, retain=task + 1 < len(task_graph.tasks))
    return {leaf: gradient for leaf, gradient in zip(leaves, grads, strict=True) if gradient is not None}
