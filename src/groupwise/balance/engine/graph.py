"""Who reaches what: one walk over the autograd graph of all losses.

Each loss is a root, each leaf an `AccumulateGrad` node. In topological order a node hands the set of tasks that reach
it (a bit per task) to its children, so one pass over the edges gives, for every node and every leaf, which tasks stand
above it. A parameter is *shared* if two tasks reach it (if there is only one task, if that one does); the others are
task-only. Nothing about the model needs to be stated: tied, frozen and unused parts come out right by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

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
        children: the outgoing edges of every node.
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

    def common(self, mask: int) -> bool:
        """Whether what this mask reaches is shared."""
        return mask.bit_count() >= min(2, len(self.tasks))

    def at_root(self, task: int) -> bool:
        """Whether the graph of a task is shared from its loss on."""
        return self.common(self.masks[self.roots[task].node])

    def reached(self, task: int) -> list[Tensor]:
        """The leaves of one task."""
        return [leaf for leaf, mask in self.leaves.items() if mask >> task & 1]


def walk(losses: Mapping[str, Tensor], stop: Sequence[GradientEdge] = ()) -> Graph:
    """The graph of the losses; a walk with `stop` goes no further than those edges' nodes."""
    roots = tuple(edge_of(loss) for loss in losses.values())
    return walk_from(tuple(losses), roots, stop)


def walk_from(tasks: tuple[str, ...], roots: tuple[GradientEdge, ...], stop: Sequence[GradientEdge] = ()) -> Graph:
    """The graph below some edges, one for each task."""
    ends = {edge.node for edge in stop}
    order, children = _ordered([root.node for root in roots], ends)
    masks = dict.fromkeys(order, 0)
    for bit, root in enumerate(roots):
        masks[root.node] |= 1 << bit
    leaves: dict[Tensor, int] = {}
    sparse: set[Tensor] = set()
    reentrant = sharded = False
    for node, mask in masks.items():
        edges = children[node]
        for child, _ in edges:
            if child is not None:
                masks[child] |= mask
        if not edges and node not in ends and (leaf := _leaf(node)) is not None:
            leaves[leaf] = leaves.get(leaf, 0) | mask
        elif saved_for_backward(node, "sparse"):
            sparse.update(leaf for child, _ in edges if child is not None and (leaf := _leaf(child)) is not None)
        reentrant = reentrant or type(node).__name__ == _REENTRANT
        sharded = sharded or type(node).__name__ == _SHARDED
    return Graph(tasks, roots, masks, children, leaves, frozenset(sparse), reentrant, sharded)


def leaves_of(losses: Iterable[Tensor]) -> list[Tensor]:
    """Every tensor that a backward of the losses would give a gradient, in no order that means anything."""
    level = {get_gradient_edge(loss).node for loss in losses}
    visited: set[Node] = set()
    leaves: dict[Tensor, None] = {}
    while level:
        visited |= level
        below: set[Node | None] = set()
        for node in level:
            if edges := node.next_functions:
                below.update([edge[0] for edge in edges])
            elif isinstance(leaf := getattr(node, "variable", None), Tensor):
                leaves[leaf] = None
        level = {node for node in below - visited if node is not None}
    return [*leaves]


def _ordered(roots: Sequence[Node], ends: set[Node]) -> tuple[list[Node], dict[Node, Edges]]:
    """Every node before its children (the reverse of the order in which a depth-first walk leaves them); the edges."""
    left: list[Node] = []
    children: dict[Node, Edges] = {}  # holds the nodes, which keeps their identity
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            left.append(node)
        elif node not in children:
            children[node] = () if node in ends else tuple(through(*edge) for edge in node.next_functions)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in children[node] if child is not None and child not in children)
    left.reverse()
    return left, children


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
