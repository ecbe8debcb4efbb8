"""What one call of `backward` has to balance: losses, and the tensors that they reach, sorted into shared and own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from groupwise.balance.engine.graph import Graph, walk
from groupwise.errors import BalanceError

TaskSpecific: TypeAlias = dict[Tensor, dict[int, Tensor]]
"""The gradients of task-only tensors, by tensor and task."""

_KNOWN = {
    "use_reentrant": (
        "a reentrant checkpoint hides a part of the graph, so the tasks' gradients cannot be taken apart: "
        "pass use_reentrant=False to torch.utils.checkpoint"
    ),
    "donated buffer": (
        "torch.compile made a backward that can run only once, and there is one for each task: "
        "set torch._functorch.config.donated_buffer = False before the model is compiled"
    ),
    "mark a variable ready only once": (
        "DistributedDataParallel met a parameter twice in one backward, as after one forward for each task: give each "
        "loss to balancer.accumulate() right after its own forward, with find_unused_parameters=True (the last one to "
        "backward()), or make one forward that returns what all tasks need"
    ),
    "backward through the graph a second time": (
        "the graph of these losses is gone: another backward ran through it; call the balancer first, "
        "or pass retain_graph=True to the other"
    ),
}


@final
@dataclass(frozen=True, eq=False)
class TaskGraph:
    """Losses and what they reach.

    Attributes:
        losses: scalars that require grad, by task.
        graph: who reaches what.
        shared: the tensors whose gradients the method balances.
        own: every other tensor that gets a gradient, with the tasks that reach it.
        scale: 0-dim, what `GradScaler` multiplies losses by; None without one.
    """

    losses: Mapping[str, Tensor]
    graph: Graph
    shared: tuple[Tensor, ...]
    own: Mapping[Tensor, int]
    scale: Tensor | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, in the order of rows."""
        return tuple(self.losses)

    def gradient(self, task: int, inputs: Sequence[Tensor | GradientEdge], retain: bool = True) -> list[Tensor | None]:
        """The gradient of one task's (scaled) loss."""
        if not inputs:
            return []
        loss = [*self.losses.values()][task]
        start = None if self.scale is None else self.scale.to(loss)
        places: list[Any] = [*inputs]
        with translated():
            return list(torch.autograd.grad(loss, places, start, retain_graph=retain, allow_unused=True))

    def gradients(self, inputs: Sequence[Tensor | GradientEdge]) -> list[Tensor | None]:
        """The gradient of the sum of all (scaled) losses; the graph is kept."""
        losses, places = [*self.losses.values()], [*inputs]
        starts = None if self.scale is None else [self.scale.to(loss) for loss in losses]
        with translated():
            return list(torch.autograd.grad(losses, places, starts, retain_graph=True, allow_unused=True))  # type: ignore[arg-type]


def task_graph_of(
    losses: Mapping[str, Tensor], candidates: frozenset[Tensor] | None, scale: Tensor | None
) -> TaskGraph:
    """Walk the graph and sort. `candidates` are the tensors that may count as shared; None for all.

    Raises `BalanceError` for a graph that hides something, or a task that reaches nothing.
    """
    graph = walk(losses)
    if graph.reentrant:
        raise BalanceError(_KNOWN["use_reentrant"])
    reaching, shared, own = 0, [], {}
    for leaf, mask in graph.leaves.items():
        candidate = candidates is None or leaf in candidates
        if candidate:
            reaching |= mask
        if candidate and graph.common(mask):
            shared.append(leaf)
        else:
            own[leaf] = mask
    for i, task in enumerate(losses):
        if not reaching >> i & 1:
            where = "no parameter" if candidates is None else "none of the tensors that parameters= names"
            raise BalanceError(f"the loss of task {task!r} reaches {where}")
    return TaskGraph(losses, graph, tuple(shared), own, scale)


class _Translated:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):
            for fragment, message in _KNOWN.items():
                if fragment in str(error):
                    raise BalanceError(message) from error


_TRANSLATED = _Translated()


def translated() -> AbstractContextManager[None]:
    """Say what torch means where it refuses to differentiate."""
    return _TRANSLATED
