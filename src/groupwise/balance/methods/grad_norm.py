"""Learnt weights under which every task trains at the same relative rate.

N_i = w_i n_i, with n_i the length of task i's gradient at one shared layer, is to approach mean(N) r_i^alpha, where
r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)) is large for a task that lags behind. The weights take one step per update
on

    sum_i |N_i - target_i|        (the target held fixed),

whose derivative is n_i sign(N_i - target_i): N is linear in w, so no graph is differentiated twice. The step is the
proximal one: |.| is followed to its kink and no further, so that a long gradient cannot throw a weight past its
target, or below zero. Then the weights are scaled to add up to the number of tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import NonNegative, Positive
from groupwise.balance.directions import lengths
from groupwise.balance.domain import require_positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import Property

_WEIGHT, _FIRST = "weight", "first loss"


@final
@dataclass(frozen=True)
class GradNorm(GramianMethod):
    """Weights learnt by gradient balancing (Chen et al. 2018, ICML), from 1; `Balancer(…, at=layer)` names the layer.

    Weights and first losses are kept by task; one that joins starts with weight 1 and its own first loss. At each
    update the weights of the tasks that are present add up to their number.

    Scale: a sum, at the start the plain one.

    Args:
        alpha: how strongly a task that lags is favoured; the paper uses 0.12 to 3.
        lr: of the weights.
        variant: "paper"; or "relative", where the step is measured in units of the mean N, so that it does not change
            with the scale of the losses.

    Raises:
        BalanceError: a loss that is not positive (its rate of training is not defined), naming the task.
    """

    alpha: NonNegative = 1.5
    lr: Positive = 0.025
    variant: Literal["paper", "relative"] = "paper"

    class_properties = frozenset({Property.EQUIVARIANT, Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """Under "relative" the scale of the losses makes no difference to the weights."""
        return self.class_properties | ({Property.HOMOGENEOUS} if self.variant == "relative" else set())

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] above 0, adding up to t; then one step on them."""
        weights = _to_count(memory.of_tasks(_WEIGHT, context.tasks, 1.0))
        norms = lengths(gramian)
        mean = (weights * norms).mean()
        target = mean * self._lag(context, memory) ** self.alpha
        reach = self.lr * (norms / mean if self.variant == "relative" else norms)
        goal = torch.where(norms > 0, target / norms, weights)
        reach = torch.where(norms > 0, reach, 0.0)
        memory.keep_tasks(_WEIGHT, context.tasks, _to_count(torch.clamp(goal, weights - reach, weights + reach)))
        return weights

    def _lag(self, context: MethodContext, memory: Memory) -> Tensor:
        """[t] r_i, after noting the first losses of tasks that are new."""
        new = ~memory.has_tasks(_FIRST, context.tasks)
        positive = torch.where(new | (context.losses != 0), context.losses, 1.0)  # a later 0 has a ratio, which is 0
        require_positive(self, positive, context.tasks, "add a constant to that loss, or leave the task out", _WANTS)
        first = torch.where(new, context.losses, memory.of_tasks(_FIRST, context.tasks, 1.0))
        memory.keep_tasks(_FIRST, context.tasks, first)
        ratio = context.losses / first
        return torch.where(ratio.mean() > 0, ratio / ratio.mean(), 1.0)


_WANTS = "compares each loss with its first"


def _to_count(weights: Tensor) -> Tensor:
    return weights * (len(weights) / weights.sum())
