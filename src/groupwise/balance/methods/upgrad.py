"""Unconflicting projection: take each gradient to the nearest update that raises no task's loss; then the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskNumbers
from groupwise.balance.directions import preferred, require_above_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.solvers.dual_cone import projected


@final
@dataclass(frozen=True)
class UPGrad(GramianMethod):
    """mean_i pi(g_i), pi the projection on the cone {d: J d >= 0} (Quinton and Rey 2024, arXiv 2406.16232), solved
    exactly.

    Linear in the scale of each task while the active constraints stay the same; without any conflict, the mean.

    Scale: a mean.

    Args:
        preference: p by task; the mean is weighted by p.
    """

    preference: TaskNumbers | None = None

    class_properties = PLAIN | {Property.HOMOGENEOUS, Property.NON_CONFLICTING, Property.STRONGLY_STATIONARY}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least those of the mean."""
        return projected(gramian, torch.diag(preferred(self.preference, self.name, context.tasks))).sum(0)
