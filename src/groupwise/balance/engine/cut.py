"""Where the tasks part: features that are given, and features that are found.

Features cut the graph if every path from a loss to a shared tensor leads through them. Found features are the narrowest
single tensor that does: a node at which all open edges of the topological order meet. Where paths run around every
single tensor (a skip from trunk to head, a tied weight), there is none, and they have to be given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from groupwise._spelling import shown
from groupwise._torch import output_shapes
from groupwise.balance.engine.graph import Graph, edge_of
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.errors import BalanceError, listed

AUTO = "auto"


def cut(task_graph: TaskGraph, features: object) -> tuple[TaskGraph, list[GradientEdge]]:
    """The features as edges, and the problem with what lies above them, or below but under one task, as its own.

    Raises `BalanceError` for features that are not in the graph, or around which a shared tensor is reached.
    """
    edges = [narrowest(task_graph)] if features == AUTO else [*_given(task_graph.graph, features)]
    nodes = [edge.node for edge in edges]
    above = task_graph.graph.above(frozenset(nodes))
    reached = [above.masks.get(node, 0) for node in nodes]
    if not all(reached):
        raise BalanceError(
            f"features[{reached.index(0)}] is not between the losses and the parameters, or only under another "
            "feature: give the tensors that the heads read"
        )
    below = task_graph.graph.part(nodes)
    several = len(task_graph.tasks) > 1  # all that a single task reaches counts as shared, its head too
    around = [leaf for leaf in task_graph.shared if several and leaf in above.leaves]
    around += [leaf for leaf in above.leaves if leaf in below.leaves and leaf not in set(around)]
    if around:
        shapes = listed(f"one of shape {list(leaf.shape)}" for leaf in around)
        raise BalanceError(
            f"the features do not part trunk and heads: around them, the losses reach {len(around)} tensors of the "
            f"trunk ({shapes}); give every tensor that the heads read, or leave features out"
        )
    lone = {leaf: mask for leaf, mask in task_graph.own.items() if not task_graph.graph.common(mask)}
    return TaskGraph(
        task_graph.losses, task_graph.graph, task_graph.shared, {**above.leaves, **lone}, task_graph.scale
    ), edges


def _given(graph: Graph, features: object) -> Iterator[GradientEdge]:
    for place, z in _tensors(features):
        if not isinstance(z, Tensor):
            raise BalanceError(f"features{place} is {shown(z)} ({type(z).__name__}), not a tensor")
        if not z.requires_grad:
            raise BalanceError(f"features{place} does not require grad: no trainable parameter lies below it")
        edge = edge_of(z)
        if edge.node not in graph.masks:
            raise BalanceError(
                f"features{place} (shape {list(z.shape)}) is not in the graph of any loss: give the tensor that the "
                "heads read, not a copy or a detached one"
            )
        yield edge


def _tensors(features: object) -> Iterable[tuple[str, object]]:
    if isinstance(features, Mapping):
        return [(f"[{name!r}]", z) for name, z in features.items()]
    if isinstance(features, list | tuple):
        return [(f"[{i}]", z) for i, z in enumerate(features)]
    return [("", features)]


def narrowest(task_graph: TaskGraph) -> GradientEdge:
    """The smallest single tensor that every path to a shared tensor leads through.

    Raises `BalanceError` if there is none.
    """
    graph = task_graph.graph
    needed = _leading_to(graph, set(task_graph.shared))
    open_edges = {(root.node, root.output_nr) for root in graph.roots if root.node in needed}
    best: tuple[float, GradientEdge] | None = None
    for node in graph.masks:
        if node not in needed:
            continue
        if not graph.children[node]:
            break  # a shared tensor: what comes later does not lie above it
        if len(open_edges) == 1:
            ((meeting, number),) = open_edges
            if (size := _size(meeting, number)) < (math.inf if best is None else best[0]):
                best = size, GradientEdge(meeting, number)
        open_edges = {edge for edge in open_edges if edge[0] is not node}
        open_edges |= {(child, nr) for child, nr in graph.children[node] if child is not None and child in needed}
    if best is None:
        raise BalanceError(
            "no single tensor parts the trunk from the heads: give features= the tensors that the heads read"
        )
    return best[1]


def _leading_to(graph: Graph, leaves: set[Tensor]) -> set[Node]:
    """Every node with a path to one of the leaves."""
    leading: set[Node] = set()
    for node in reversed(graph.masks):
        edges = graph.children[node]
        own = not edges and getattr(node, "variable", None) in leaves
        if own or any(child in leading for child, _ in edges):
            leading.add(node)
    return leading


def _size(node: Node, number: int) -> float:
    """The number of entries of a node's output; infinite where torch does not say."""
    shapes = output_shapes(node)
    return shapes[number].numel() if number < len(shapes) else math.inf
