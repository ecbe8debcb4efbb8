"""One task comes first: follow its gradient as closely as the least progress of all others allows."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Fraction, NonNegative, TaskName
from groupwise.balance.directions import lengths, primary_of
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.balance.solvers.dual_cone import reaching

_SQUARE, _COUNT = "mean square", "updates"
_NOTHING = 2.0**-40


@final
@dataclass(frozen=True)
class PCD(GramianMethod):
    """min |d - g_p|^2 over d with g_j.d >= tau |g_j|^2 for all j != p, the gradients divided by the root of their
    moving mean square; then d gets the length of the raw g_p (Priority-Constrained Descent, TMLR 2026), solved exactly.

    Where no d meets the constraints they are dropped, and the update is g_p. The moving means are kept by task, each
    with a bias correction of its own.

    Scale: the length of the primary's gradient.

    Args:
        tau: the progress of each other task, as a share of what its own normalised gradient would bring.
        beta: the decay of the moving mean.
        eps: added to the mean square. The paper has 1e-8, which ties the result to the scale of the losses; 0 does not.
        primary: the task p; by default the first one ever given.

    Raises:
        BalanceError: the primary is not among the tasks of this update.
    """

    tau: Fraction = 0.02
    beta: Fraction = 0.999
    eps: NonNegative = 0.0
    primary: TaskName | None = None

    class_properties = frozenset({Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """Without eps the scale of the losses makes no difference; with a named primary, nor does their order."""
        free = {Property.HOMOGENEOUS} if self.eps == 0 else set()
        return self.class_properties | free | ({Property.EQUIVARIANT} if self.primary is not None else set())

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] weights; 1 at the primary and 0 elsewhere where the constraints cannot be met."""
        first = primary_of(self.primary, self.name, context, memory)
        scale = self._scale(gramian, context, memory)
        normal = gramian * scale.outer(scale)
        met = _constrained(normal, first, self.tau)
        square = float(gramian[first, first])
        if met is None or not square > 0:
            alone = torch.zeros(len(gramian), dtype=torch.float64)
            alone[first] = 1.0
            return alone
        length, longest = float(met @ normal @ met), float(lengths(normal) @ met.abs())
        if not length > _NOTHING * longest * longest:
            return torch.zeros_like(met)
        return met * scale * sqrt(square / length)

    def _scale(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the factors that normalise the gradients, this update's included; 1 for one that was always zero."""
        count = memory.of_tasks(_COUNT, context.tasks, 0.0) + 1
        mean = self.beta * memory.of_tasks(_SQUARE, context.tasks, 0.0) + (1 - self.beta) * gramian.diagonal()
        memory.keep_tasks(_COUNT, context.tasks, count)
        memory.keep_tasks(_SQUARE, context.tasks, mean)
        square = mean / (1 - self.beta**count) + self.eps
        return square.rsqrt().where(square > 0, 1.0)


def _constrained(normal: Tensor, first: int, tau: float) -> Tensor | None:
    """[t] weights of d: 1 at the primary, and the multipliers of the constraints elsewhere."""
    if len(normal) == 1:
        return torch.ones(1, dtype=torch.float64)
    rows = torch.cat([normal[:first], normal[first + 1 :]])
    block = torch.cat([rows[:, :first], rows[:, first + 1 :]], 1)
    wanted = tau * block.diagonal() - rows[:, first]
    found = reaching(block, torch.zeros_like(wanted), wanted)
    return None if found is None else torch.cat([found[:first], found.new_ones(1), found[first:]])
