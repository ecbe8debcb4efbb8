"""Which parameters a loss reaches, read from its autograd graph; nothing is computed and nothing consumed.

The graph's edges lead from a loss to the leaves (`AccumulateGrad` nodes), so reaching is a walk over `next_functions`.
A total is a sum, and often a weighted one: `seg + 0.1 * depth` leaves an addition and a multiplication by a constant at
the top of the graph, where every node is a scalar. Taken apart, these give the terms and their weights.

Two things are not in the graph: the parameters inside a re-entrant checkpoint, which runs its part of the model again
during the backward, and those of a model sharded by FSDP2, which autograd knows only in gathered form. There the graph
does not show it, and `opaque` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch

from groupwise._torch import output_shapes, saved_for_backward

_THROUGH: Final = ("ToCopyBackward0", "AliasBackward0", "CloneBackward0", "ViewBackward0", "NegBackward0")


@final
@dataclass(frozen=True, slots=True)
class Term:
    """A summand of a task's loss: the size of the constant in front of it, and the leaves that it reaches."""

    task: str
    weight: float
    leaves: frozenset[int]


@final
@dataclass(frozen=True, slots=True)
class Reach:
    """What the losses reach.

    Args:
        tasks: by task, the leaves that its loss reaches, by identity.
        terms: the summands of all the losses.
        shapes: the sizes of those leaves that are `nn.Parameter`s.
        opaque: why `tasks` may lack some leaves; empty if it has them all.
    """

    tasks: Mapping[str, frozenset[int]]
    terms: tuple[Term, ...] = ()
    shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    opaque: str = ""

    def tasks_of(self, leaf: int) -> list[str]:
        """The tasks that reach a leaf."""
        return [task for task, leaves in self.tasks.items() if leaf in leaves]


def reach_of(losses: Mapping[str, torch.Tensor]) -> Reach:
    """Walk the graph of each loss. A loss without a graph reaches nothing."""
    tasks: dict[str, frozenset[int]] = {}
    terms: list[Term] = []
    shapes: dict[int, tuple[int, ...]] = {}
    opaque = ""
    for task, loss in losses.items():
        if loss.grad_fn is None:
            tasks[task] = frozenset({id(loss)} if loss.requires_grad else ())
            continue
        leaves, hidden = _leaves(loss.grad_fn)
        tasks[task], opaque = frozenset(leaves), opaque or hidden
        terms += [Term(task, abs(weight), frozenset(_leaves(node)[0])) for node, weight in _terms(loss.grad_fn, 1.0)]
        shapes |= {key: tuple(leaf.shape) for key, leaf in leaves.items() if isinstance(leaf, torch.nn.Parameter)}
    return Reach(tasks, tuple(terms), shapes, opaque)


def leaves_of(roots: Iterable[object]) -> tuple[frozenset[int], bool]:
    """The leaves that a backward from these tensors reaches, by identity, and whether some may be hidden."""
    found: set[int] = set()
    opaque = False
    for root in roots:
        if isinstance(root, torch.Tensor) and root.grad_fn is None:
            found.add(id(root))
        elif isinstance(root, torch.Tensor):
            leaves, hidden = _leaves(root.grad_fn)
            found, opaque = found | set(leaves), opaque or bool(hidden)
    return frozenset(found), opaque


def _leaves(start: Any) -> tuple[dict[int, torch.Tensor], str]:
    found: dict[int, torch.Tensor] = {}
    hidden = ""
    visited, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        if node.name().endswith("AccumulateGrad"):
            found[id(node.variable)] = node.variable
        if node.name().startswith("CheckpointFunctionBackward"):
            hidden = "the model uses re-entrant checkpointing, whose inside the graph does not show"
        following = {after for after, _ in node.next_functions if after is not None} - visited
        visited |= following
        waiting += following
    return found, hidden


def _terms(node: Any, weight: float) -> Iterator[tuple[Any, float]]:
    """The nodes that a scalar sums up, each with the product of the constants in front of it."""
    below = [after for after, _ in node.next_functions if after is not None]
    name = node.name()
    if _is_scalar(node) and name in ("AddBackward0", "SubBackward0") and saved_for_backward(node, "alpha") == 1:
        for after in below:
            yield from _terms(after, weight)
    elif _is_scalar(node) and name in _THROUGH and len(below) == 1:
        yield from _terms(below[0], weight)
    elif _is_scalar(node) and len(below) == 1 and (factor := _factor(node, name)) is not None:
        yield from _terms(below[0], weight * factor)
    else:
        yield node, weight


def _factor(node: Any, name: str) -> float | None:
    """The constant that a scalar node multiplies by; None if it does not, or if the graph has been freed."""
    other = _constant(node, "other")
    if name == "DivBackward0":
        return 1 / other if other else None
    if name == "MulBackward0":
        return other if other is not None else _constant(node, "self")
    return None


def _constant(node: Any, name: str) -> float | None:
    value = saved_for_backward(node, name)
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.requires_grad:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _is_scalar(node: Any) -> bool:
    return [shape.numel() for shape in output_shapes(node)] == [1]
