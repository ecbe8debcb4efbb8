"""Conflict-free: equal cosines with every task, and as long as the gradients' projections on it together.

The direction x with U x = p (U the unit gradients) is U' C^+ p, C = U U' their cosines: the Gramian is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskNumbers
from groupwise.balance.claims import PLAIN, Claim
from groupwise.balance.directions import among_present, lengths, preferred, require_above_zero, unit
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, Seen
from groupwise.balance.spectrum import CUT, pseudo_solve


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

    promises = PLAIN | {Claim.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    def weights(self, gramian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[t] weights."""
        p = preferred(self.preference, self.name, seen.tasks)
        return among_present(gramian, lambda present, index: _weights(present, p[index]))


def _weights(gramian: Tensor, p: Tensor) -> Tensor:
    cosines, n = unit(gramian), lengths(gramian)
    y = pseudo_solve(cosines, p)
    square = y @ cosines @ y
    if not bool(square > CUT * y.abs().sum() ** 2):
        return torch.zeros_like(y)
    return (n @ cosines @ y) / square * y / n
