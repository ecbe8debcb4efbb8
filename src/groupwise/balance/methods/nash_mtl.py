"""A bargain: no other update raises one task's gain by a larger share than it lowers the others'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Positive, TaskNumbers
from groupwise.balance.directions import among_present, preferred, require_above_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.solvers.bargaining import bargained


@final
@dataclass(frozen=True)
class NashMTL(GramianMethod):
    """G a = 1/a (Navon et al. 2022, ICML), solved exactly.

    Scale: |J'a| is sqrt(t) whatever the gradients, then clipped to `max_norm`, as in the published code. So with the
    default every update has length 1, the learning rate alone decides the step, and a single task gets its *unit*
    gradient. `Normalized(NashMTL())` has the length of the mean gradient instead. The gains are all positive: it
    conflicts with no task. At a Pareto-stationary point there is no bargain, and the update is zero.

    Args:
        max_norm: the longest update; None leaves sqrt(t).
        preference: p by task: the bargaining power, G a = p / a, scaled to a mean of 1 (AuxiNash).
    """

    max_norm: Positive | None = 1.0
    preference: TaskNumbers | None = None

    class_properties = (PLAIN - {Property.SINGLE}) | {
        Property.SCALE_FREE,
        Property.TASK_SCALE_FREE,
        Property.NON_CONFLICTING,
    }

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] above 0, or all 0 at a Pareto-stationary point."""
        p = preferred(self.preference, self.name, context.tasks)
        return among_present(gramian, lambda present, index: self._bargain(present, p[index]))

    def _bargain(self, gramian: Tensor, p: Tensor) -> Tensor:
        a = bargained(gramian, p * (len(p) / p.sum()), 1.0)
        if a is None:
            return torch.zeros_like(p)
        return a if self.max_norm is None else a * min(1.0, self.max_norm / len(p) ** 0.5)
