"""Random weights for the gradients: the litmus test, on the shared parameters alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance.claims import Claim
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, Seen


@final
@dataclass(frozen=True)
class RandomWeights(GramianMethod):
    """w = softmax(z), z_i ~ N(0, 1), drawn anew at each update (random gradient weighting: Lin et al. 2022, TMLR).

    `RLW` with the heads left raw. Drawn from the memory's generator, which is part of the state.

    Scale: a mean; the weights add up to 1.
    """

    promises = frozenset({Claim.HOMOGENEOUS, Claim.SINGLE})

    def weights(self, gramian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[t] above 0, adding up to 1."""
        return torch.softmax(torch.randn(len(gramian), generator=memory.generator, dtype=torch.float64), 0)
