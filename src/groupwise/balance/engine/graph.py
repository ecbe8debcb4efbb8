"""Who reaches what: one walk over the autograd graph of all losses.

Each loss is a root, each leaf an `AccumulateGrad` node. In topological order a node hands the set of tasks that reach
it (a bit per task) to its children, so one pass over the edges gives, for every node and every leaf, which tasks stand
above it. A parameter is *shared* if two tasks reach it (if there is only one task, if that one does); the others are
task-only. Nothing about the model needs to be stated: tied, frozen and unused parts come out right by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from groupwise._torch import saved_for_backward

Edges: TypeAlias = tuple[tuple[Node | None, int], ...]

_SINK = "_DDPSinkBackward"
_SHARDED = "RegisterPostBackwardFunctionBackward"
_REENTRANT = "CheckpointFunctionBackward"


@final
@dataclass(frozen=True, eq=False)
class Graph:
    """What one walk found.

    Attributes:
        tasks: bit i of a mask stands for `tasks[i]`.
        roots: where each task's walk began.
        masks: every node, in topological order from the losses to the leaves, with the tasks that reach it.
        children: the outgoing edges of every node, in the order of `masks`.
        leaves: every tensor that `backward` would give a gradient, with the tasks that reach it.
        sparse: the leaves that an embedding with `sparse=True` reads.
        reentrant: whether a reentrant checkpoint hides a part of the graph.
        sharded: whether `fully_shard` owns the parameters, and the leaves are passing copies of them.
    """

    tasks: tuple[str, ...]
    roots: tuple[GradientEdge, ...]
    masks: dict[Node, int]
    children: dict[Node, Edges]
    leaves: dict[Tensor, int]
    sparse: frozenset[Tensor]
    reentrant: bool
    sharded: bool
    _above: dict[frozenset[Node], Part] = field(default_factory=dict, init=False, repr=False)

    def above(self, ends: frozenset[Node]) -> Part:
        """What lies between the losses and some nodes, which belong to it."""
        if ends not in self._above:
            self._above[ends] = self.part((root.node for root in self.roots), ends)
        return self._above[ends]

    def common(self, mask: int) -> bool:
        """Whether what this mask reaches is shared."""
        return mask.bit_count() >= min(2, len(self.tasks))

    def at_root(self, task: int) -> bool:
        """Whether the graph of a task is shared from its loss on."""
        return self.common(self.masks[self.roots[task].node])

    def reached(self, task: int) -> list[Tensor]:
        """The leaves of one task."""
        return [leaf for leaf, mask in self.leaves.items() if mask >> task & 1]

    def part(self, starts: Iterable[Node], ends: Collection[Node] = ()) -> Part:
        """What lies below some nodes, node i with bit i, and not below the `ends`, which belong to it."""
        masks: dict[Node, int] = {}
        leaves: dict[Tensor, int] = {}
        for bit, node in enumerate(starts):
            masks[node] = masks.get(node, 0) | 1 << bit
        for node, edges in self.children.items():
            mask = masks.get(node, 0)
            if not mask or node in ends:
                continue
            for child, _ in edges:
                if child is not None:
                    masks[child] = masks.get(child, 0) | mask
            if not edges and (leaf := _leaf(node)) is not None:
                leaves[leaf] = leaves.get(leaf, 0) | mask
        return Part(masks, leaves)


class Part(NamedTuple):
    """A part of a graph: its nodes and its leaves, with the starts that reach them."""

    masks: Mapping[Node, int]
    leaves: Mapping[Tensor, int]


def walk(losses: Mapping[str, Tensor]) -> Graph:
    """The graph of the losses."""
    roots = tuple(edge_of(loss) for loss in losses.values())
    children = _ordered([root.node for root in roots])
    masks = dict.fromkeys(children, 0)
    for bit, root in enumerate(roots):
        masks[root.node] |= 1 << bit
    leaves: dict[Tensor, int] = {}
    for node, edges in children.items():
        mask = masks[node]
        for child, _ in edges:
            if child is not None:
                masks[child] |= mask
        if not edges and (leaf := _leaf(node)) is not None:
            leaves[leaf] = leaves.get(leaf, 0) | mask
    kinds = {type(node): node for node in children}
    names = {kind.__name__ for kind in kinds}
    lookups = {kind for kind, node in kinds.items() if saved_for_backward(node, "sparse") is not None}
    sparse = _read_by([node for node in children if type(node) in lookups], children) if lookups else frozenset()
    return Graph(tuple(losses), roots, masks, children, leaves, sparse, _REENTRANT in names, _SHARDED in names)


def _read_by(nodes: Iterable[Node], children: Mapping[Node, Edges]) -> frozenset[Tensor]:
    """The leaves right below those nodes that ask for a sparse gradient."""
    below = [child for node in nodes if saved_for_backward(node, "sparse") for child, _ in children[node]]
    return frozenset(leaf for child in below if child is not None and (leaf := _leaf(child)) is not None)


def leaves_of(losses: Iterable[Tensor]) -> list[Tensor]:
    """Every tensor that a backward of the losses would give a gradient, in no order that means anything."""
    open_nodes: list[Node] = [loss.grad_fn or get_gradient_edge(loss).node for loss in losses]
    leaves: list[Tensor] = [_variable(node) for node in open_nodes if type(node) is _ACCUMULATE]
    visited: set[Node | None] = {None, *open_nodes}
    while open_nodes:
        for child, _ in open_nodes.pop().next_functions:
            if child is not None and child not in visited:
                visited.add(child)
                if type(child) is _ACCUMULATE:
                    leaves.append(_variable(child))
                else:
                    open_nodes.append(child)
    return leaves


_variable: Callable[[Node], Tensor] = attrgetter("variable")
_ACCUMULATE = type(get_gradient_edge(torch.zeros((), requires_grad=True)).node)
"""The nodes in which a backward ends, one for each tensor."""


def _ordered(roots: Sequence[Node]) -> dict[Node, Edges]:
    """The edges of every node, each before its children: depth first, and in the reverse of the order of leaving."""
    left: list[Node] = []
    edges_of: dict[Node, Edges] = {}  # holds the nodes, which keeps their identity
    over: set[Node] = set()
    stack = [*roots]
    while stack:
        node = stack[-1]
        if node in edges_of:
            stack.pop()
            if node not in over:
                over.add(node)
                left.append(node)
            continue
        edges = node.next_functions
        for child, _ in edges:
            if type(child).__name__ == _SINK:
                edges = tuple(through(*edge) for edge in edges)
                break
        edges_of[node] = edges
        stack += [child for child, _ in edges if child is not None and child not in edges_of]
    left.reverse()
    return {node: edges_of[node] for node in left}


def edge_of(tensor: Tensor) -> GradientEdge:
    """Where the gradient of a tensor arrives."""
    edge = get_gradient_edge(tensor)
    node, number = through(edge.node, edge.output_nr)
    return edge if node is None or node is edge.node else GradientEdge(node, number)


def through(node: Node | None, number: int) -> tuple[Node | None, int]:
    """Past DDP's sink, one node through which all outputs of a model pass unchanged, each by itself."""
    while type(node).__name__ == _SINK and node is not None:
        node, number = node.next_functions[number]
    return node, number


def _leaf(node: Node) -> Tensor | None:
    leaf = getattr(node, "variable", None) if not node.next_functions else None
    return leaf if isinstance(leaf, Tensor) else None
