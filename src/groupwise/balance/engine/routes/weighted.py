"""Weighted: one backward of sum w_i L_i, for weights that are known beforehand.

F + B_h + B_t, the cost of the plain sum: the weights are the gradients that the backward starts from. Task-only tensors
that shall *not* see the weight need no second pass either. The weight then enters where a task's own part of the graph
ends and the shared part begins: a hook multiplies what leaves the task's last own node, for any weight, zero included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from groupwise import _torch
from groupwise.balance.engine import accumulate_grad
from groupwise.balance.engine.graph import Graph
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.rows import Update
from groupwise.balance.engine.task_graph import TaskGraph, translated


@final
class Weighted(Route):
    """No look, one backward.

    Args:
        losses: scalars that require grad, by task.
        scale: the scaler's, or None.
        task_graph: the sorted graph, where task-only tensors may have a factor of their own; None where none has.
    """

    def __init__(self, losses: Mapping[str, Tensor], scale: Tensor | None, task_graph: TaskGraph | None) -> None:
        self._losses = losses
        self._scale = scale
        self._task_graph = task_graph

    @property
    def words(self) -> str:
        return "weighted: one backward of the weighted sum; exact"

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        if not kept:
            return
        names = [*self._losses]
        chosen = [self._losses[names[task]] for task in kept]
        if self._task_graph is None or torch.equal(weights, own):
            backward(chosen, weights if len(kept) == len(names) else weights[list(kept)], self._scale)
        else:
            self._write_apart(self._task_graph, chosen, weights.tolist(), own.tolist(), kept)

    def _write_apart(
        self,
        task_graph: TaskGraph,
        chosen: Sequence[Tensor],
        weights: Sequence[float],
        own: Sequence[float],
        kept: Sequence[int],
    ) -> None:
        """The task's own part starts from 1 or its own factor, and the weight enters at the border."""
        apart = [leaf for leaf, mask in task_graph.own.items() if not _follows(task_graph.graph, mask, own)]
        accumulate_grad.add(_summed(task_graph, apart, own, kept))
        inner = [factor or 1.0 for factor in own]
        starts = [weights[task] if task_graph.graph.at_root(task) else inner[task] for task in kept]
        inputs = [leaf for leaf in task_graph.graph.leaves if leaf not in set(apart)] if apart else None
        with ExitStack() as hooks:
            for handle in _hooked(task_graph.graph, [w / factor for w, factor in zip(weights, inner, strict=True)]):
                hooks.callback(handle.remove)
            backward(chosen, torch.tensor(starts, dtype=torch.float64), self._scale, inputs)


def _follows(graph: Graph, mask: int, own: Sequence[float]) -> bool:
    """Whether a tensor that is not shared gets its factor in the common backward: it is one task's, and not zero."""
    return not graph.common(mask) and own[mask.bit_length() - 1] != 0


def _summed(
    task_graph: TaskGraph, leaves: Sequence[Tensor], own: Sequence[float], kept: Sequence[int]
) -> Iterator[Update]:
    """Gradients of tensors that need a backward of their own, times the tasks' own factors."""
    total: dict[Tensor, Tensor] = {}
    for task in kept if leaves else ():
        for leaf, gradient in zip(leaves, task_graph.gradient(task, leaves), strict=True):
            if gradient is not None:
                piece = gradient * own[task]
                total[leaf] = total[leaf] + piece if leaf in total else piece
    yield from total.items()


def backward(
    losses: Sequence[Tensor], weights: Tensor, scale: Tensor | None, inputs: list[Tensor] | None = None
) -> None:
    """`.grad` += sum w_i times the gradient of loss i."""
    starts = starting(losses, weights, scale)
    with translated():
        if inputs is None:
            _torch.backward(losses, starts)
        else:
            torch.autograd.backward(losses, starts, inputs=inputs)


def starting(losses: Sequence[Tensor], weights: Tensor, scale: Tensor | None) -> list[Tensor]:
    """The gradients that a backward of the weighted and scaled sum starts from."""
    device, dtype = losses[0].device, losses[0].dtype
    if any(loss.dtype != dtype or loss.device != device for loss in losses):
        return [start for i, loss in enumerate(losses) for start in starting([loss], weights[i : i + 1], scale)]
    moved = weights.to(device=device, dtype=torch.promote_types(dtype, torch.float32))
    if scale is not None:
        moved = moved * scale.to(moved)
    return list((moved if moved.dtype == dtype else moved.to(dtype)).unbind())


def _hooked(graph: Graph, factors: Sequence[float]) -> Iterator[RemovableHandle]:
    """Multiply by the task's weight on every edge from a node of one task to a node of several."""
    for node, mask in graph.masks.items():
        if not graph.common(mask):
            crossing = [child is not None and graph.common(graph.masks[child]) for child, _ in graph.children[node]]
            if any(crossing):
                yield node.register_hook(_multiply(factors[mask.bit_length() - 1], crossing))


def _multiply(factor: float, crossing: Sequence[bool]) -> Callable[..., Any]:
    def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return tuple(
            gradient * factor if crosses and gradient is not None else gradient
            for gradient, crosses in zip(inputs, crossing, strict=True)
        )

    return hook
