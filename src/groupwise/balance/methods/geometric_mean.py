"""The geometric mean of the losses: their product without its overflow.

d/dL_i (prod L)^(1/K) = (prod L)^(1/K) / (K L_i). Computed as exp(mean(log L) - log L_i) / K, where nothing is ever
multiplied up, it is exact for losses from 1e-300 to 1e300.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from groupwise._loss_weights import geometric_mean
from groupwise.balance.arrays import TORCH
from groupwise.balance.domain import require_positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property


@final
@dataclass(frozen=True)
class GeometricMean(LossMethod):
    """(prod_i L_i)^(1/K), also called GLS (Chennupati et al. 2019, CVPR workshops): weights GLS / (K L_i).

    Scale: a mean; with equal losses it is the mean of the gradients.

    Raises:
        BalanceError: a loss that is zero (the mean is zero there, and has no gradient) or negative, naming the task.
    """

    class_properties = PLAIN | {Property.HOMOGENEOUS}

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] of GLS / (K L_i)."""
        require_positive(
            self, losses, context.tasks, "add a constant to that loss, leave the task out of this batch, or use Equal"
        )
        found: Tensor = geometric_mean(TORCH, losses)
        return found
