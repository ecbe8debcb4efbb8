"""The heads' gradients, from one backward for all of them where each head is its task's own.

What flows into a feature is summed over heads. Just before, on its way out of a head's last node, it is still one
task's: a hook on that node sees it. So t small backwards become one, and nothing is computed twice. Where a node above
the features serves several tasks (losses cut out of one tensor), there is one backward for each task, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypeAlias

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from groupwise.balance.engine.task_graph import TaskGraph

Found: TypeAlias = Iterator[tuple[int, list[Tensor | None], list[tuple[Tensor, Tensor | None]]]]
"""For each task its gradient at each feature, and of each of its own tensors."""

_Boundaries: TypeAlias = dict[Node, list[tuple[int, int]]]


def probe(task_graph: TaskGraph, features: Sequence[GradientEdge]) -> Found:
    """The gradients of the (scaled) losses."""
    boundaries = _boundaries(task_graph, features)
    return _one_by_one(task_graph, features) if boundaries is None else _together(task_graph, features, boundaries)


def _boundaries(task_graph: TaskGraph, features: Sequence[GradientEdge]) -> _Boundaries | None:
    """The nodes with an edge to a feature, with these edges and features by number; None where tasks share one."""
    graph, places = task_graph.graph, {(edge.node, edge.output_nr): place for place, edge in enumerate(features)}
    boundaries: _Boundaries = {}
    for node, children in graph.children.items():
        through = [(i, places[edge]) for i, edge in enumerate(children) if edge in places]
        if through:
            boundaries[node] = through
    alone = all(graph.masks[node].bit_count() == 1 for node in boundaries)
    alone = alone and all(mask.bit_count() == 1 for mask in task_graph.own.values())
    inside = any((root.node, root.output_nr) in places for root in graph.roots)
    return boundaries if alone and not inside else None


def _one_by_one(task_graph: TaskGraph, features: Sequence[GradientEdge]) -> Found:
    for task in range(len(task_graph.tasks)):
        leaves = [leaf for leaf, mask in task_graph.own.items() if mask >> task & 1]
        grads = task_graph.gradient(task, [*features, *leaves])
        yield task, grads[: len(features)], list(zip(leaves, grads[len(features) :], strict=True))


def _together(task_graph: TaskGraph, features: Sequence[GradientEdge], boundaries: _Boundaries) -> Found:
    count, leaves = len(task_graph.tasks), [*task_graph.own]
    received: list[list[Tensor | None]] = [[None] * len(features) for _ in range(count)]
    masks = task_graph.graph.masks
    with ExitStack() as hooks:
        for node, through in boundaries.items():
            hooks.callback(node.register_hook(_watch(received[masks[node].bit_length() - 1], through)).remove)
        grads = task_graph.gradients([*features, *leaves])
    own: list[list[tuple[Tensor, Tensor | None]]] = [[] for _ in range(count)]
    for leaf, gradient in zip(leaves, grads[len(features) :], strict=True):
        own[task_graph.own[leaf].bit_length() - 1].append((leaf, gradient))
    yield from ((task, received[task], own[task]) for task in range(count))


def _watch(
    mine: list[Tensor | None], through: Sequence[tuple[int, int]]
) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], None]:
    def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
        for number, place in through:
            gradient, before = inputs[number], mine[place]
            if gradient is not None:
                mine[place] = gradient if before is None else before + gradient

    return hook
