"""Gradient surgery: from each gradient, take out what points against the others.

In coefficients: gradient i after surgery is sum_k c_ik g_k, its product with g_j is (cG)_ij, so the Gramian is enough.
The tasks i do not meet, and all take their next j at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.claims import Claim
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, Seen


@final
@dataclass(frozen=True)
class PCGrad(GramianMethod):
    """For each i, over j != i in a random order: where g_i.g_j < 0, take from g_i its part along the original g_j; add
    up (Yu et al. 2020, NeurIPS).

    Every i has an order of its own, drawn from the memory's generator. Two tasks need no order, and draw nothing that
    shows.

    Scale: a sum; without any conflict, the plain one.

    Args:
        variant: "sum", the paper's; or "mean", 1/t of it, as in two published implementations.
    """

    variant: Literal["sum", "mean"] = "sum"

    promises = frozenset({Claim.HOMOGENEOUS, Claim.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[t] at least 1 (1/t under "mean")."""
        square = gramian.diagonal()
        c = torch.eye(len(gramian), dtype=torch.float64)
        products = gramian.clone()
        for others in random_orders(len(gramian), memory.generator):
            along = products.gather(1, others[:, None])
            taken = torch.where(along < 0, -along / square[others][:, None], 0.0)
            c.scatter_add_(1, others[:, None], taken)
            products += taken * gramian[others]
        return c.sum(0) if self.variant == "sum" else c.mean(0)


def random_orders(t: int, generator: torch.Generator) -> Tensor:
    """[t - 1, t]: column i is a random order of the others."""
    drawn = torch.rand(t, t, generator=generator, dtype=torch.float64).fill_diagonal_(2.0)
    return drawn.argsort(dim=1)[:, :-1].T
