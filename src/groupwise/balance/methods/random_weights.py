"""Random weights for the gradients: the litmus test, on the shared parameters alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Drawing, source
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import Property


@final
@dataclass(frozen=True)
class RandomWeights(GramianMethod):
    """w = softmax(z), z_i ~ N(0, 1), drawn anew at each update (random gradient weighting: Lin et al. 2022, TMLR).

    `RLW` with the heads left raw. Drawn from the memory's generator, which is part of the state.

    Scale: a mean; the weights add up to 1.

    Args:
        generator: what to draw from instead of the memory's generator; torch's, on the CPU. Its state is then yours to
            save (`Balancer.state_dict` has only the memory's), and files cannot hold it.
    """

    generator: Drawing | None = field(default=None, compare=False, repr=False)
    class_properties = frozenset({Property.HOMOGENEOUS, Property.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] above 0, adding up to 1."""
        generator = source(self.generator, memory)
        return torch.softmax(torch.randn(len(gramian), generator=generator, dtype=torch.float64), 0)
