"""Uncertainty weighting with a regulariser that stays positive.

In Kendall's form the term s / 2 falls without bound, and the total may be negative. Here the variance c^2 pays
log(1 + c^2) instead. With s = log c^2 learnt in the place of c, no division by zero is possible; the gradient is
sigmoid(s) - e^-s L / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.adam import Learned
from groupwise.balance.arguments import Positive
from groupwise.balance.domain import require_at_least_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property

_KEY = "log variance"


@final
@dataclass(frozen=True)
class RevisedUncertainty(LossMethod):
    """sum_i L_i / (2 c_i^2) + log(1 + c_i^2), c_i learnt from 1 (Liebel and Körner 2018, arXiv 1805.06334).

    Scale: a sum, at the start half the plain one.

    Args:
        lr: of the Adam that learns log c_i^2.

    Raises:
        BalanceError: a negative loss, naming the task.
    """

    lr: Positive = 0.025

    class_properties = frozenset({Property.EQUIVARIANT, Property.DETERMINISTIC, Property.SEPARATE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] of 1 / (2 c_i^2); then one step on c."""
        require_at_least_zero(self, losses, context.tasks, 'use Uncertainty(variant="softplus"), or add a constant')
        s = Learned(memory, _KEY, context.tasks)
        weights = 0.5 * torch.exp(-s.value)
        s.step(torch.sigmoid(s.value) - weights * losses, self.lr)
        return weights
