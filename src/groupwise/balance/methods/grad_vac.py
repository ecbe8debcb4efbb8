"""Gradient vaccine: bring each pair of gradients to the cosine that it has on average.

If the cosine phi of the current g_i with g_j is below its target p, the multiple of g_j that brings it to p is

    |g_i| (p sqrt(1 - phi^2) - phi sqrt(1 - p^2)) / (|g_j| sqrt(1 - p^2)).

With the target at 0 this is PCGrad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Fraction
from groupwise.balance.claims import Claim
from groupwise.balance.directions import lengths
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, Seen
from groupwise.balance.methods.pcgrad import random_orders

_TARGET = "target cosine"


@final
@dataclass(frozen=True)
class GradVac(GramianMethod):
    """For each i, over j != i in a random order: raise the cosine of g_i with g_j to its moving average; add up
    (Wang et al. 2021, ICLR).

    The average of each ordered pair starts at 0 and is kept by the names of the tasks; a zero gradient leaves it alone.

    Scale: a sum, as PCGrad's.

    Args:
        beta: how much of the current cosine enters the average.
        variant: "paper", where the average takes in every cosine; or "corrected", only those that were raised.
    """

    beta: Fraction = 0.5
    variant: Literal["paper", "corrected"] = "paper"

    promises = frozenset({Claim.HOMOGENEOUS, Claim.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[t] weights; then the averages are kept."""
        targets = memory.of_pairs(_TARGET, seen.tasks, 0.0)
        c = torch.eye(len(gramian), dtype=torch.float64)
        products, length = gramian.clone(), lengths(gramian)
        for others in random_orders(len(gramian), memory.generator):
            column = others[:, None]
            own = (products * c).sum(1, keepdim=True).clamp(min=0).sqrt()
            size, target = own * length[column], targets.gather(1, column)
            cosine = torch.where(size > 0, products.gather(1, column) / size, target).clamp(-1, 1)
            low = (size > 0) & (cosine < target) & (target < 1)
            added = torch.where(low, own / length[column] * _raise(cosine, target), 0.0)
            c.scatter_add_(1, column, added)
            products += added * gramian[others]
            taken_in = low if self.variant == "corrected" else size > 0
            targets.scatter_(1, column, torch.where(taken_in, target.lerp(cosine, self.beta), target))
        memory.keep_pairs(_TARGET, seen.tasks, targets)
        return c.sum(0)


def _raise(cosine: Tensor, target: Tensor) -> Tensor:
    """What the module's formula multiplies |g_i| / |g_j| by."""
    return target * ((1 - cosine**2) / (1 - target**2)).sqrt() - cosine
