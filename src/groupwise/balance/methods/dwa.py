"""Dynamic weight average: a task whose loss falls more slowly than the others' weighs more.

The rate of task k is the ratio of its last two averages. The paper averages over epochs. Two widely used codebases
average over the last 25 batches instead, which is another algorithm under the same name: here it is `window=25`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise._loss_weights import dynamic_weight_average
from groupwise.balance import arguments
from groupwise.balance.arguments import Positive, Times
from groupwise.balance.arrays import TORCH
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property

_EPOCHS = "sum and batches of this epoch, and the averages of the last two"
_NOTHING = torch.tensor([0.0, 0.0, torch.nan, torch.nan], dtype=torch.float64)


@final
@dataclass(frozen=True)
class DWA(LossMethod):
    """w_k = K softmax(r / T)_k, r_k = L_k(t-1) / L_k(t-2) (Liu, Johns, Davison 2019, CVPR), L_k(t) the mean of epoch t.

    Call `balancer.end_epoch()` after every epoch: without it there are no averages, and every weight stays 1. A task
    that has no two averages yet, or whose older one is zero, has the rate 1. An epoch in which a task never appears
    does not count for that task.

    Scale: a sum; the weights of the present tasks add up to their number.

    Args:
        temperature: T; larger makes the weights more even.
        window: None for epochs; a number n for the mean of the last n batches over that of the n before them, as soon
            as 2n were given, this batch included. `end_epoch` then does nothing.
    """

    temperature: Positive = 2.0
    window: Times | None = None

    class_properties = frozenset({Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] adding up to t."""
        rates = (
            self._of_epochs(losses, context, memory)
            if self.window is None
            else self._of_windows(losses, context, memory)
        )
        found: Tensor = dynamic_weight_average(TORCH, rates, self.temperature)
        return found

    def end_epoch(self, memory: Memory) -> None:
        """Close the averages of this epoch."""
        for task in memory.tasks():
            total, batches, newer, _ = memory.of_tasks(_EPOCHS, [task], _NOTHING)[0]
            if batches > 0:
                memory.keep_tasks(
                    _EPOCHS, [task], torch.stack([_NOTHING[0], _NOTHING[1], total / batches, newer])[None]
                )

    def _of_epochs(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        total, batches, newer, older = memory.of_tasks(_EPOCHS, context.tasks, _NOTHING).unbind(1)
        memory.keep_tasks(_EPOCHS, context.tasks, torch.stack([total + losses, batches + 1, newer, older], 1))
        return _rates(newer, older)

    def _of_windows(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        n = self.window or 0
        unseen = torch.full((2 * n,), torch.nan, dtype=losses.dtype)
        past = torch.cat([memory.of_tasks("last losses", context.tasks, unseen)[:, 1:], losses[:, None]], 1)
        memory.keep_tasks("last losses", context.tasks, past)
        return _rates(past[:, n:].mean(1), past[:, :n].mean(1))


def _rates(newer: Tensor, older: Tensor) -> Tensor:
    """newer / older, and 1 where one of them is not known (nan) or the ratio does not exist."""
    rates = newer / older
    return torch.where(rates.isfinite(), rates, 1.0)
