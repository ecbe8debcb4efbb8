"""Every task alike: the sum of the losses, or their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property


@final
@dataclass(frozen=True)
class Equal(LossMethod):
    """sum_i L_i: the baseline, also called linear scalarisation (Xin et al. 2022, NeurIPS; Kurin et al. 2022, NeurIPS).

    Scale: a sum of the tasks that are present, so the update grows with their number.

    Args:
        reduction: "sum", or "mean" for the sum over the number of present tasks. Under plain SGD the two differ by a
            factor in the learning rate.
    """

    reduction: Literal["sum", "mean"] = "sum"

    class_properties = PLAIN | {Property.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """A mean depends on how many tasks there are."""
        return self.class_properties | ({Property.SEPARATE} if self.reduction == "sum" else set())

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] of 1, or of 1/t."""
        ones = torch.ones_like(losses)
        return ones / len(losses) if self.reduction == "mean" else ones
