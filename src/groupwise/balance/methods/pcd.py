"""One task comes first: follow its gradient as closely as the least progress of all others allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Fraction, NonNegative, TaskName
from groupwise.balance.claims import Claim
from groupwise.balance.directions import lengths, primary_of
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, Seen
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
        primary: the task p; by default the first one ever seen.

    Raises:
        BalanceError: the primary is not among the tasks of this update.
    """

    tau: Fraction = 0.02
    beta: Fraction = 0.999
    eps: NonNegative = 0.0
    primary: TaskName | None = None

    promises = frozenset({Claim.SINGLE, Claim.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def claims(self) -> frozenset[Claim]:
        """Without eps the scale of the losses makes no difference; with a named primary, nor does their order."""
        free = {Claim.HOMOGENEOUS} if self.eps == 0 else set()
        return self.promises | free | ({Claim.EQUIVARIANT} if self.primary is not None else set())

    def weights(self, gramian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[t] weights; 1 at the primary and 0 elsewhere where the constraints cannot be met."""
        first = primary_of(self.primary, self.name, seen, memory)
        scale = self._scale(gramian, seen, memory)
        alone = torch.zeros(len(gramian), dtype=torch.float64)
        alone[first] = 1.0
        normal = gramian * scale.outer(scale)
        others = alone == 0
        met = _constrained(normal, first, others, self.tau)
        if met is None or not bool(gramian[first, first] > 0):
            return alone
        length = met @ normal @ met
        if not bool(length > _NOTHING * (lengths(normal) @ met.abs()) ** 2):
            return torch.zeros_like(alone)
        return met * scale * (gramian[first, first] / length).sqrt()

    def _scale(self, gramian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[t] the factors that normalise the gradients, this update's included; 1 for one that was always zero."""
        count = memory.of_tasks(_COUNT, seen.tasks, 0.0) + 1
        mean = self.beta * memory.of_tasks(_SQUARE, seen.tasks, 0.0) + (1 - self.beta) * gramian.diagonal()
        memory.keep_tasks(_COUNT, seen.tasks, count)
        memory.keep_tasks(_SQUARE, seen.tasks, mean)
        square = mean / (1 - self.beta**count) + self.eps
        return torch.where(square > 0, square.rsqrt(), 1.0)


def _constrained(normal: Tensor, first: int, others: Tensor, tau: float) -> Tensor | None:
    """[t] weights of d: 1 at the primary, and the multipliers of the constraints elsewhere."""
    weights = torch.ones(len(normal), dtype=torch.float64)
    block = normal[others][:, others]
    wanted = tau * block.diagonal() - normal[others, first]
    found = reaching(block, torch.zeros_like(wanted), wanted)
    if found is None:
        return None
    weights[others] = found
    return weights
