"""A rank's part of every parameter under `fully_shard`, and of every task's gradient.

FSDP2 has the whole gradient of a parameter for a moment only: its post-backward averages it over the ranks, scatters it
and leaves each rank its part, as a DTensor. So there is one `backward` for each task, through one graph; after each,
the parts are taken out of `.grad`. What they are parts of is the gradient of the joint batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from groupwise._shards import copies, local, sharded_like
from groupwise.balance.engine.task_graph import TaskGraph, translated
from groupwise.errors import BalanceError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@final
class Parts:
    """This rank's part of every parameter: plain tensors that stand for the DTensors while rows are made of them."""

    def __init__(self, parameters: Sequence[DTensor]) -> None:
        self._all = parameters
        self._known: dict[DTensor, tuple[Tensor, object]] = {}
        self._by_part: dict[Tensor, DTensor] = {}

    @property
    def whole(self) -> list[DTensor]:
        """The parameters that train."""
        return [parameter for parameter in self._all if parameter.requires_grad]

    @property
    def like(self) -> Tensor:
        """A tensor on the device of the parts."""
        return next(iter(self._parameters))

    @property
    def _parameters(self) -> dict[Tensor, DTensor]:
        """Each parameter by its part. Made at the first use: until the first forward, a model may be moved."""
        if not self._by_part:
            self.begin()
        return self._by_part

    def begin(self) -> None:
        """Look at the parameters anew. A part stands for its parameter for as long as it has the same layout."""
        self._by_part = {}
        for parameter in self.whole:
            part = local(parameter)
            layout = part.shape, part.stride(), part.dtype, part.device
            known = self._known.get(parameter)
            if known is None or known[1] != layout:
                known = self._known[parameter] = part, layout
            self._by_part[known[0]] = parameter

    def passes(self, task_graph: TaskGraph) -> Generator[tuple[str, dict[Tensor, Tensor]]]:
        """One backward after the other: each task with the parts of its gradients. The last one lets the graph go.

        Raises `BalanceError` where `fully_shard` does not own all that a task reaches.
        """
        with _without_grad([*self._parameters.values(), *task_graph.graph.leaves]):
            last = len(task_graph.tasks) - 1
            for i, (task, loss) in enumerate(task_graph.losses.items()):
                with translated():
                    start = None if task_graph.scale is None else task_graph.scale.to(loss)
                    torch.autograd.backward(loss, start, retain_graph=i < last)
                found = {part: _taken(parameter) for part, parameter in self._parameters.items()}
                row = {part: gradient for part, gradient in found.items() if gradient is not None}
                left = any(leaf.grad is not None for leaf in task_graph.graph.leaves)
                _require_owned(task, len(task_graph.graph.reached(i)), len(row), left)
                yield task, row

    @contextmanager
    def grads(self) -> Iterator[None]:
        """Inside, the `.grad` of a part is the part of the parameter's `.grad`."""
        for part, parameter in self._parameters.items():
            part.grad = None if parameter.grad is None else local(parameter.grad)
        try:
            yield
            for part, parameter in self._parameters.items():
                if part.grad is not None and parameter.grad is None:
                    parameter.grad = sharded_like(part.grad, parameter)
        finally:
            for part in self._parameters:
                part.grad = None

    def copies(self, part: Tensor) -> int:
        """How many ranks have the same part."""
        return copies(self._parameters[part])


def _taken(parameter: DTensor) -> Tensor | None:
    """A parameter's part of its gradient, taken out of `.grad`: a copy, for one buffer holds those of a whole layer."""
    gradient, parameter.grad = parameter.grad, None
    return None if gradient is None else local(gradient).clone()


@contextmanager
def _without_grad(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put every `.grad` aside."""
    held = [(tensor, tensor.grad) for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    try:
        yield
    finally:
        for tensor, gradient in held:
            tensor.grad = gradient


def _require_owned(task: str, reached: int, found: int, left: bool) -> None:
    if left or reached != found:
        raise BalanceError(
            f"task {task!r} reaches {reached} tensors, and its backward left gradients in parts for {found} of the "
            "module in parameters=: give the outermost fully_shard module, with all that the losses reach in it, no "
            "ignored_params= among them, and gradient sync on (set_requires_gradient_sync)"
        )
