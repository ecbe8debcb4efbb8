"""Near the mean gradient, the update that serves the worst-off task best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import NonNegative, TaskNumbers
from groupwise.balance.directions import preferred, require_above_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.solvers.conflict_averse import averse


@final
@dataclass(frozen=True)
class CAGrad(GramianMethod):
    """max_d min_i g_i.d with |d - g0| <= c |g0|, g0 the mean gradient (Liu et al. 2021, NeurIPS), solved exactly.

    Where the gradients' hull contains zero, several d are best; then the one nearest to g0 is taken.

    Scale: a mean; |d| lies between (1 - c)|g0| and (1 + c)|g0|, and is (1 + c)|g0| for a single task.

    Args:
        c: the radius of the ball in units of |g0|; at 0 the update is the mean, from 1 on it never conflicts.
        variant: "paper"; or with the update divided by "1+c" or "1+c^2", as in published code.
        preference: p by task; g0 becomes the mean weighted by p.
    """

    c: NonNegative = 0.5
    variant: Literal["paper", "1+c", "1+c^2"] = "paper"
    preference: TaskNumbers | None = None

    class_properties = (PLAIN - {Property.SINGLE}) | {Property.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    @property
    def properties(self) -> frozenset[Property]:
        """No conflict once the ball contains zero; and divided by 1 + c, a single task is left alone."""
        wide = {Property.NON_CONFLICTING} if self.c >= 1 else set()
        return self.class_properties | wide | ({Property.SINGLE} if self.variant == "1+c" or self.c == 0 else set())

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least those of g0, before the division."""
        by = {"paper": 1.0, "1+c": 1 + self.c, "1+c^2": 1 + self.c**2}[self.variant]
        return averse(gramian, preferred(self.preference, self.name, context.tasks), self.c) / by
