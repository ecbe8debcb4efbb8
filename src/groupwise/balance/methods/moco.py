"""Tracked gradients: a min-norm direction is only as good as the gradients it is computed from.

The minimiser of |J' w|^2 depends on J nonlinearly, so with minibatch gradients it is biased however small the step.
MoCo tracks each gradient by a moving average y_i, whose error vanishes, and moves the weights by one projected gradient
step on w' (Y Y' + rho I) w / 2 per update instead of solving for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import NonNegative, Positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.projection import project
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError


@final
@dataclass(frozen=True)
class MoCo(JacobianMethod):
    """Y' w with y_i <- y_i - b_k (y_i - g_i) and w <- P(w - c_k (Y Y' + rho I) w) (Fernando et al. 2023, ICLR), P the
    projection onto the simplex, b_k = beta / k^beta_decay at a task's k-th update, c_k alike.

    The tracked gradients start at 0 and the weights at 1/t; the weights of the present tasks are brought to the sum 1
    before they move. LibMTL takes a softmax in the place of P; as that keeps the weights nearly equal whatever the
    gradients are, it is left out.

    Scale: a mean of tracked gradients, so smaller than a gradient at first. In the weights' step the gradients' own
    scale counts ("paper"): `gamma` is in units of 1 / |g|^2. Keeps one number per task and shared parameter.

    Args:
        beta, beta_decay: of the tracking.
        gamma, gamma_decay: of the weights' step. The defaults are those that LibMTL has from the authors.
        rho: pulls the weights together.
        variant: "paper"; or "normalized", which tracks g_i / |g_i| times the loss, as LibMTL does.
    """

    beta: Positive = 0.5
    beta_decay: NonNegative = 0.5
    gamma: Positive = 0.1
    gamma_decay: NonNegative = 0.5
    rho: NonNegative = 0.0
    variant: Literal["paper", "normalized"] = "paper"

    class_properties = frozenset({Property.EQUIVARIANT, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)
        if self.beta > 1:
            raise BalanceError(f"MoCo: beta: {self.beta:g} is more than 1, beyond the gradient that it tracks")

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n]."""
        rows = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
        if self.variant == "normalized":
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            rows = torch.where(norms > 0, rows / norms, 0.0) * context.losses.to(rows)[:, None]
        age = memory.of_tasks("updates", context.tasks, 0.0) + 1
        memory.keep_tasks("updates", context.tasks, age)
        rate = (self.beta / age**self.beta_decay).to(rows)[:, None]
        tracked = memory.of_rows("tracked gradient", context.tasks, context, rows[0]).lerp(rows, rate)
        memory.keep_rows("tracked gradient", context.tasks, context, tracked)
        return (self._weights(tracked, age, context, memory).to(tracked) @ tracked).to(jacobian.dtype)

    def _weights(self, tracked: Tensor, age: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] float64 on the CPU, after their step."""
        gramian = (tracked @ tracked.T).to(device="cpu", dtype=torch.float64)
        weights = project(memory.of_tasks("weight", context.tasks, 1 / len(context.tasks)))
        rate = self.gamma / age.max() ** self.gamma_decay
        weights = project(weights - rate * (gramian @ weights + self.rho * weights))
        memory.keep_tasks("weight", context.tasks, weights)
        return weights
