"""Impartial gradients: the update has the same projection on every task's direction.

(Ga)_i = |g_i| lambda says that (J'a).g_i / |g_i| is lambda for all. In b_i = |g_i| a_i and the cosines C that is
C b = lambda 1, and lambda drops out with sum a = 1. Where C is singular the least-squares solution stands in. For two
tasks b_1 = b_2 whatever their cosine, unless it is -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import final

import torch
from torch import Tensor

from groupwise.balance.directions import among_present
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.spectrum import opposite, solve_cosines, solve_few

_CANCELS = 1e-12


@final
@dataclass(frozen=True)
class IMTL_G(GramianMethod):
    """a proportional to G^+ n, n_i = |g_i|, with sum a = 1 (Liu et al. 2021, ICLR).

    Scale: an affine mean. A weight may be negative, and where they nearly cancel the update is long: that is the
    definition. Where they cancel altogether (two opposite gradients) it is zero.
    """

    class_properties = PLAIN | {Property.HOMOGENEOUS}

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] adding up to 1, or all 0."""
        return among_present(gramian, lambda present, _: _weights(present))


def _weights(gramian: Tensor) -> Tensor:
    return weights_of_two(gramian) if len(gramian) == 2 else weights_of_many(gramian)


def weights_of_two(gramian: Tensor) -> Tensor:
    """The closed form."""
    (first, product), (_, second) = gramian.tolist()
    if opposite(first, product, second):
        return torch.zeros(2, dtype=torch.float64)
    n = sqrt(first), sqrt(second)
    return torch.tensor([n[1] / (n[0] + n[1]), n[0] / (n[0] + n[1])], dtype=torch.float64)


def weights_of_many(gramian: Tensor) -> Tensor:
    """From the cosines."""
    few = solve_few(gramian)
    if few is None:
        n = gramian.diagonal().sqrt()
        found: list[float] = solve_cosines(gramian / n.outer(n), torch.ones_like(n)).div_(n).tolist()
    else:
        found = few[1]
    total = sum(found)
    if abs(total) > _CANCELS * sum(map(abs, found)):
        return torch.tensor([a / total for a in found], dtype=torch.float64)
    return torch.zeros(len(found), dtype=torch.float64)
