"""One task comes first: follow its gradient as closely as the least progress of all others allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Fraction, NonNegative, TaskName
from groupwise.balance.directions import primary_of
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.balance.solvers.dual_cone import reaching_alone

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
        square = float(gramian[first, first])
        if square > 0 and len(scale) == 2:
            return weights_of_two(gramian, scale, first, self.tau)
        return weights_of_many(gramian, scale, first, self.tau)

    def _scale(self, gramian: Tensor, context: MethodContext, memory: Memory) -> list[float]:
        """[t] the factors that normalise the gradients, this update's included; 1 for one that was always zero."""
        counts = [count + 1 for count in memory.of_tasks(_COUNT, context.tasks, 0.0).tolist()]
        past, now = memory.of_tasks(_SQUARE, context.tasks, 0.0).tolist(), gramian.diagonal().tolist()
        means = [self.beta * mean + (1 - self.beta) * square for mean, square in zip(past, now, strict=True)]
        memory.keep_tasks(_COUNT, context.tasks, torch.tensor(counts, dtype=torch.float64))
        memory.keep_tasks(_SQUARE, context.tasks, torch.tensor(means, dtype=torch.float64))
        squares = [mean / (1 - self.beta**n) + self.eps for mean, n in zip(means, counts, strict=True)]
        return [1 / sqrt(square) if square > 0 else 1.0 for square in squares]


def weights_of_two(gramian: Tensor, scale: Sequence[float], first: int, tau: float) -> Tensor:
    """The closed form, for a primary that is not zero: [t] weights."""
    rows, other = gramian.tolist(), 1 - first
    n = scale[first], scale[other]
    own, product = rows[first][first] * n[0] ** 2, rows[first][other] * n[0] * n[1]
    square = rows[other][other] * n[1] ** 2
    x = max((tau * square - product) / square, 0.0) if square > 0 else 0.0
    length, longest = own + 2 * x * product + x * x * square, sqrt(own) + x * sqrt(square)
    if not length > _NOTHING * longest * longest:
        return torch.zeros(2, dtype=torch.float64)
    factor = sqrt(rows[first][first] / length)
    found = factor * n[0], factor * x * n[1]
    return torch.tensor(found if first == 0 else found[::-1], dtype=torch.float64)


def weights_of_many(gramian: Tensor, scales: Sequence[float], first: int, tau: float) -> Tensor:
    """The same by a quadratic program, for any number of tasks."""
    scale = torch.tensor(scales, dtype=torch.float64)
    normal = gramian * scale.outer(scale)
    squares = gramian.diagonal().tolist()
    met, square = _constrained(normal, first, tau), squares[first]
    if met is None or not square > 0:
        alone = torch.zeros(len(gramian), dtype=torch.float64)
        alone[first] = 1.0
        return alone
    terms = zip(met.tolist(), scales, squares, strict=True)
    length, longest = float(met @ normal @ met), sum(abs(weight) * n * sqrt(square) for weight, n, square in terms)
    if not length > _NOTHING * longest * longest:
        return torch.zeros_like(met)
    return met.mul_(scale).mul_(sqrt(square / length))


def _constrained(normal: Tensor, first: int, tau: float) -> Tensor | None:
    """[t] weights of d: 1 at the primary, and the multipliers of the constraints elsewhere."""
    if first:
        order = [first, *(i for i in range(len(normal)) if i != first)]
        found = _constrained(normal[order][:, order], 0, tau)
        return None if found is None else torch.zeros_like(found).index_copy_(0, torch.tensor(order), found)
    block = normal[1:, 1:]
    found = reaching_alone(block, block.diagonal().mul(tau).sub_(normal[1:, 0]))
    return None if found is None else torch.cat([found.new_ones(1), found])
