"""Gradient sign dropout: where tasks disagree on a sign, one sign is drawn, and the other tasks are silent there.

With p the sum of the positive and m that of the negative entries of one coordinate over tasks, the purity is
P = (1 + (p + m) / (p - m)) / 2 = p / (p - m), and the update of that coordinate is p with probability P, else m. So it
is never a compromise, and its expectation, (p^2 - m^2) / (p - m) = p + m, is the plain sum.

The paper applies this to the gradient of the shared representation, with the sign of the activation multiplied in and
summed over the batch before P is taken. On a Jacobian of parameters, which is what later libraries do and the default
here, there is no batch and no activation; on one of features (the balancer's features route) the columns are taken one
by one, without that premultiplication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Drawing, TaskShares, source
from groupwise.balance.by_task import by_task
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError


@final
@dataclass(frozen=True)
class GradDrop(JacobianMethod):
    """sum_i (l_i + (1 - l_i) M_i) g_i, M_i the entries of the drawn sign (Chen et al. 2020, NeurIPS).

    The draws come from the memory's generator on the CPU: they are the same on every device and part of the state.

    Scale: a sum; its expectation is the plain sum of the gradients, its norm in one draw mostly larger.

    Args:
        leak: l, the share of a gradient that passes unchanged, from 0 to 1: a number, or one by task.
        variant: "paper"; or "renormalized", which gives the update the norm of the plain sum, as Lingvo's layer means
            to (its code multiplies by the ratio of the norms the wrong way round).
        generator: what to draw from instead of the memory's generator; torch's, on the CPU. Its state is then yours to
            save (`Balancer.state_dict` has only the memory's), and files cannot hold it.
    """

    leak: TaskShares = 0.0
    variant: Literal["paper", "renormalized"] = "paper"
    generator: Drawing | None = field(default=None, compare=False, repr=False)

    class_properties = frozenset({Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.SINGLE})

    def __post_init__(self) -> None:
        arguments.read(self)
        for leak in self.leak.values() if isinstance(self.leak, Mapping) else [self.leak]:
            if not 0 <= leak <= 1:
                raise BalanceError(f"GradDrop: leak: {leak:g} is not from 0 to 1")

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n]."""
        positive, negative = _signs(jacobian, [1.0] * len(jacobian))
        generator = source(self.generator, memory)
        draws = torch.rand(jacobian.shape[1], generator=generator, dtype=torch.float32).to(positive)
        drawn = draws * (positive - negative) < positive  # always where nothing is negative
        leaks = self._leaks(context)
        if any(leaks):
            kept = torch.where(drawn, *_signs(jacobian, [1 - leak for leak in leaks]))
            update = kept + torch.tensor(leaks).to(kept) @ jacobian.to(kept.dtype)
        else:
            update = torch.where(drawn, positive, negative)
        if self.variant == "renormalized":
            norm = torch.linalg.vector_norm(update)
            update = update * torch.where(norm > 0, torch.linalg.vector_norm(positive + negative) / norm, 1.0)
        return update.to(jacobian.dtype)

    def _leaks(self, context: MethodContext) -> list[float]:
        if isinstance(self.leak, Mapping):
            return by_task(self.leak).numbers("the leak of GradDrop", context.tasks).tolist()
        return [self.leak] * len(context.tasks)


def _signs(jacobian: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """[n] and [n]: the weighted sums of the positive and of the negative entries, row by row to spare memory."""
    dtype = torch.promote_types(jacobian.dtype, torch.float32)
    positive, negative = torch.zeros(2, jacobian.shape[1], dtype=dtype, device=jacobian.device)
    for weight, row in zip(weights, jacobian, strict=True):
        positive.add_(row.clamp(min=0), alpha=weight)
        negative.add_(row.clamp(max=0), alpha=weight)
    return positive, negative
