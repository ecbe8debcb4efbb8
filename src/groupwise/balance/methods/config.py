"""Conflict-free: equal cosines with every task, and as long as the gradients' projections on it together.

The direction x with U x = p (U the unit gradients) is U' C^+ p, C = U U' their cosines: the Gramian is enough. For two
tasks and equal p it halves their angle, and the weights, (n_1 + n_2) / 2 n_i, are free of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from operator import mul
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskNumbers
from groupwise.balance.directions import among_present, preferred, require_above_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.spectrum import CUT, opposite, solve_cosines, solve_few


@final
@dataclass(frozen=True)
class ConFIG(GramianMethod):
    """u = unit([unit g_i]^+ 1), d = (sum_i g_i.u) u (Liu et al. 2025, ICLR).

    While the gradients are independent, d conflicts with none. Where they are not, no direction may have equal cosines
    with all of them; the nearest one in least squares is taken, and where that is none, the update is zero.

    Scale: a sum; the length is the sum of the gradients' projections on the direction.

    Args:
        preference: p by task: the cosines are in proportion to p.
    """

    preference: TaskNumbers | None = None

    class_properties = PLAIN | {Property.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] weights."""
        p = preferred(self.preference, self.name, context.tasks)
        if self.preference is None and len(gramian) == 2 and (found := weights_of_two(gramian)) is not None:
            return found
        return among_present(gramian, lambda present, index: weights_of_many(present, p[index]))


def weights_of_two(gramian: Tensor) -> Tensor | None:
    """The closed form for equal p; None where a gradient is zero."""
    (first, product), (_, second) = gramian.tolist()
    if not (first and second):
        return None
    n = sqrt(first), sqrt(second)
    both = 0.0 if opposite(first, product, second) else (n[0] + n[1]) / 2
    return torch.tensor([both / n[0], both / n[1]], dtype=torch.float64)


def weights_of_many(gramian: Tensor, p: Tensor) -> Tensor:
    """From the cosines."""
    few = solve_few(gramian, p.tolist())
    if few is not None:
        n, a = few  # the cosines with the direction are p itself
        shares = p.tolist()
        square = sum(map(mul, map(mul, a, n), shares))
        return torch.tensor(a, dtype=torch.float64).mul_(sum(map(mul, n, shares)) / square)
    return weights_of_dependent(gramian, p)


def weights_of_dependent(gramian: Tensor, p: Tensor) -> Tensor:
    """The same for any number of tasks, and where no direction has these cosines."""
    n = gramian.diagonal().sqrt()
    cosines = gramian / n.outer(n)
    y = solve_cosines(cosines, p)
    along = cosines @ y
    square = float(y @ along)
    if not square > CUT * float(y.abs().sum()) ** 2:
        return torch.zeros_like(y)
    return (float(n @ along) / square) * y / n
