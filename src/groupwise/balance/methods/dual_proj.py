"""The nearest update to the mean gradient that raises no task's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

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
class DualProj(GramianMethod):
    """pi(mean g), pi the projection on the cone {d: J d >= 0} (GEM: Lopez-Paz and Ranzato 2017, NeurIPS), solved
    exactly.

    Scale: a mean; no longer than the mean gradient, and equal to it where nothing conflicts with it.

    Args:
        preference: p by task; the mean is weighted by p.
    """

    preference: TaskNumbers | None = None

    class_properties = PLAIN | {Property.HOMOGENEOUS, Property.NON_CONFLICTING}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least those of the mean."""
        return projected(gramian, preferred(self.preference, self.name, context.tasks)[None])[0]
