"""The heads' gradients, from one backward for all of them where each head is its task's own.

What flows into a feature is summed over heads. Just before, on its way out of a head's last node, it is still one
task's: a hook on that node takes it, and lets nothing flow on, unless a tensor of one task alone lies below. So t
small backwards become one, nothing is computed twice, and where one feature lies below another, what the upper one
hands down is not counted as the heads'. Where a node above the features serves several tasks (losses cut out of one
tensor), there is one backward for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from groupwise.balance.engine.task_graph import TaskGraph

Found: TypeAlias = Iterator[tuple[int, list[Tensor | None], list[tuple[Tensor, Tensor | None]]]]
"""For each task its gradient at each feature, and of each of its own tensors."""


class _Boundaries(NamedTuple):
    """Where heads end.

    Attributes:
        nodes: their last nodes: the tasks that they serve, and which of their edges lead to which feature, by number.
        final: whether all tensors of single tasks lie above, so that nothing has to flow on.
    """

    nodes: dict[Node, tuple[int, list[tuple[int, int]]]]
    final: bool


_Received: TypeAlias = list[list[Tensor | None]]


def probe(task_graph: TaskGraph, features: Sequence[GradientEdge]) -> Found:
    """The gradients of the (scaled) losses."""
    boundaries = _boundaries(task_graph, features)
    together = _are_separate(task_graph, features, boundaries)
    return (_together if together else _one_by_one)(task_graph, features, boundaries)


def _boundaries(task_graph: TaskGraph, features: Sequence[GradientEdge]) -> _Boundaries:
    graph, places = task_graph.graph, {(edge.node, edge.output_nr): place for place, edge in enumerate(features)}
    ends = frozenset(edge.node for edge in features)
    above = graph.above(ends)
    nodes: dict[Node, tuple[int, list[tuple[int, int]]]] = {}
    for node, mask in above.masks.items():
        if node not in ends:
            through = [(i, places[edge]) for i, edge in enumerate(graph.children[node]) if edge in places]
            if through:
                nodes[node] = mask, through
    return _Boundaries(nodes, all(leaf in above.leaves for leaf in task_graph.own))


def _are_separate(task_graph: TaskGraph, features: Sequence[GradientEdge], boundaries: _Boundaries) -> bool:
    """Whether each task has its own last nodes and tensors, and no loss is itself a feature."""
    ends = {edge.node for edge in features}
    masks = [*(mask for mask, _ in boundaries.nodes.values()), *task_graph.own.values()]
    return all(mask.bit_count() == 1 for mask in masks) and all(
        root.node not in ends for root in task_graph.graph.roots
    )


def _one_by_one(task_graph: TaskGraph, features: Sequence[GradientEdge], boundaries: _Boundaries) -> Found:
    for task, root in enumerate(task_graph.graph.roots):
        leaves = [leaf for leaf, mask in task_graph.own.items() if mask >> task & 1]
        received: _Received = [[None] * len(features)]
        with _watched(boundaries, received, alone=True):
            grads = task_graph.gradient(task, [*features, *leaves])
        for place, edge in enumerate(features):
            if (edge.node, edge.output_nr) == (root.node, root.output_nr):  # where the backward starts
                received[0][place] = _sum(received[0][place], grads[place])
        yield task, received[0], list(zip(leaves, grads[len(features) :], strict=True))


def _together(task_graph: TaskGraph, features: Sequence[GradientEdge], boundaries: _Boundaries) -> Found:
    count = len(task_graph.tasks)
    received: _Received = [[None] * len(features) for _ in range(count)]
    with _watched(boundaries, received, alone=False):
        grads = task_graph.gradients([*features, *task_graph.own])
    own: list[list[tuple[Tensor, Tensor | None]]] = [[] for _ in range(count)]
    for (leaf, mask), gradient in zip(task_graph.own.items(), grads[len(features) :], strict=True):
        own[mask.bit_length() - 1].append((leaf, gradient))
    yield from ((task, received[task], own[task]) for task in range(count))


@contextmanager
def _watched(boundaries: _Boundaries, received: _Received, alone: bool) -> Iterator[None]:
    """Take what flows into features: row i of `received` is task i's; where one task runs `alone`, the only row is."""
    handles = [
        node.register_hook(_take(received[0 if alone else mask.bit_length() - 1], through, boundaries.final))
        for node, (mask, through) in boundaries.nodes.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _take(
    mine: list[Tensor | None], through: Sequence[tuple[int, int]], final: bool
) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]:
    def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        left = [*inputs]
        for number, place in through:
            mine[place] = _sum(mine[place], inputs[number])
            if final:
                left[number] = None
        return tuple(left)

    return hook


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
