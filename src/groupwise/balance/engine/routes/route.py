"""A route looks first, and writes once the weights are known.

Between the two, one transfer brings the losses and the Gramian to the CPU and the method is asked. All that a route
finds is times the scaler's scale; so is what it writes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from groupwise._torch import norms
from groupwise.balance.engine import accumulate_grad, products
from groupwise.balance.engine.rows import Rows, Update
from groupwise.balance.engine.task_graph import TaskSpecific
from groupwise.errors import BalanceError


class Route(ABC):
    """One pass of `backward` along one way; t tasks."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What it does, what it costs and what is exact."""

    @property
    def rows(self) -> Rows | None:
        """The Jacobian, where the route has it."""
        return None

    @property
    def shared(self) -> tuple[Tensor, ...]:
        """The tensors that the columns of `rows` belong to, where they are parameters."""
        return ()

    @property
    def written(self) -> Iterable[Tensor]:
        """The tensors that `write` adds to, where they are not those that the losses reach."""
        return ()

    def gramian(self) -> Tensor | None:
        """[t, t] float64 on the device, if the route has one."""
        return None if self.rows is None else products.gramian(self.rows)

    def rescaled(self, table: Tensor) -> Tensor:
        """[t, t] the Gramian, now on the CPU, taken again where it lost range."""
        return table if self.rows is None else products.rescaled(self.rows, table)

    def task_specific_sums(self) -> Tensor | None:
        """[t] numbers that are finite where each task's gradients of task-only tensors are; None without a look."""
        return None

    @abstractmethod
    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        """Add to `.grad` the shared gradients times [t] `weights` and the task-only ones times [t] `own`.

        Both are 0 for tasks that are not `kept`, and nothing of these is written.
        """

    def write_update(self, update: Iterable[Update], own: Tensor, kept: Sequence[int]) -> None:
        """Add to `.grad` an update that a Jacobian method made from `rows`, and the task-only gradients."""
        raise BalanceError("this route has no Jacobian")


@final
class TaskSpecificGradients:
    """The gradients of task-only tensors, held until the weights are known."""

    def __init__(self, losses: Mapping[str, Tensor]) -> None:
        self._tasks = len(losses)
        self._device = next(iter(losses.values())).device
        self.found: TaskSpecific = {}

    def put(self, task: int, leaf: Tensor, gradient: Tensor | None) -> None:
        """One task's gradient of one tensor."""
        if gradient is not None:
            self.found.setdefault(leaf, {})[task] = gradient

    def sums(self) -> Tensor:
        """[t] float64 on the device of the losses: the sum of each tensor's largest entry; not finite where one is.

        Where one look at many small tensors shows that all are finite, zeros.
        """
        total = torch.zeros(self._tasks, dtype=torch.float64, device=self._device)
        mine = [(task, entries(g)) for by_task in self.found.values() for task, g in by_task.items()]
        if mine and not _at_once_finite([gradient for _, gradient in mine]):
            largest = norms([gradient for _, gradient in mine], None, math.inf)
            if len({(norm.device, norm.dtype) for norm in largest}) > 1:
                largest = [norm.to(self._device, torch.float64) for norm in largest]
            places = torch.tensor([task for task, _ in mine], device=self._device)
            total.index_add_(0, places, torch.stack([*largest]).to(self._device, torch.float64))
        return total

    def write(self, own: Tensor, kept: Sequence[int]) -> None:
        """Add them to `.grad`, times [t] `own`."""
        factors, allowed = own.tolist(), set(kept)
        accumulate_grad.add(
            (leaf, gradient if factors[task] == 1 else gradient * factors[task])
            for leaf, by_task in self.found.items()
            for task, gradient in by_task.items()
            if task in allowed
        )


def _at_once_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether these are small, on the CPU, where a look waits for nothing, and known to be finite."""
    if not all(gradient.is_cpu for gradient in gradients) or sum(gradient.numel() for gradient in gradients) > _SMALL:
        return False
    return bool(torch.cat([gradient.flatten() for gradient in gradients]).isfinite().all())


_SMALL = 2**17  # entries, together


def entries(gradient: Tensor) -> Tensor:
    """The entries of a gradient, dense or sparse."""
    return gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient
