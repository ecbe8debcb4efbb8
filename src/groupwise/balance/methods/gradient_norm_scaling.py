"""Gradients brought to one length, in proportion or relative to one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskName
from groupwise.balance.directions import among_present, lengths
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.errors import BalanceError, unknown


@final
@dataclass(frozen=True)
class GradientNormScaling(GramianMethod):
    """w_i = (1/n_i) / sum_j (1/n_j), n_i the length of task i's gradient; with a reference r, w_i = n_r / n_i.

    The second is the adaptive weight of VQGAN (Esser et al. 2021, CVPR). The lengths are those of this step's gradients
    over all shared parameters, or over one layer with `Balancer(…, at=…)`.

    Scale: a mean of the gradients, or with a reference a sum in which each has the length of that task's.

    Args:
        reference: the task whose gradient the others are made as long as; its own weight is 1.

    Raises:
        BalanceError: the reference is not among the tasks of this update.
    """

    reference: TaskName | None = None

    class_properties = PLAIN | {Property.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] above 0."""
        if self.reference is None:
            return among_present(gramian, lambda present, _: torch.softmax(-lengths(present).log(), 0))
        if self.reference not in context.tasks:
            raise BalanceError(
                f"{self.name}: its reference is absent: {unknown('task', self.reference, context.tasks)}; give its "
                "loss in every batch, or choose a task that always comes"
            )
        n = lengths(gramian)
        own = n[context.tasks.index(self.reference)]
        return torch.where(n > 0, own / n, 1.0)
