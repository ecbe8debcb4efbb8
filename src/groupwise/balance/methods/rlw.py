"""Random weights: the litmus test that a clever method has to pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Drawing, source
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property


@final
@dataclass(frozen=True)
class RLW(LossMethod):
    """w = softmax(z), z_i ~ N(0, 1), drawn anew at each update (Lin et al. 2022, TMLR).

    Drawn from the memory's generator, in float64 on the CPU: the draws are the same on every device, are part of the
    state, and leave torch's global generator alone.

    Scale: a mean; the weights of the present tasks add up to 1, so the expected update is 1/t of the plain sum's.

    Args:
        variant: "normal", the paper's; or "dirichlet", uniform on the simplex.
        generator: what to draw from instead of the memory's generator; torch's, on the CPU. Its state is then yours to
            save (`Balancer.state_dict` has only the memory's), and files cannot hold it.
    """

    variant: Literal["normal", "dirichlet"] = "normal"
    generator: Drawing | None = field(default=None, compare=False, repr=False)

    class_properties = frozenset({Property.HOMOGENEOUS, Property.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least 0, adding up to 1."""
        generator = source(self.generator, memory)
        if self.variant == "normal":
            return torch.softmax(torch.randn(len(losses), generator=generator, dtype=torch.float64), 0)
        draws = torch.empty(len(losses), dtype=torch.float64).exponential_(generator=generator)
        return draws / draws.sum()
