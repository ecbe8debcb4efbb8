"""Weights from the noise that each task is assumed to have.

A task whose output has the variance e^s contributes e^-s L / 2 + s / 2, the negative log-likelihood of a Gaussian. The
log-variance s is learnt with the model. Its gradient is (1 - e^-s L) / 2, so it settles where e^s is the loss itself:
the weight goes to 1 / (2 L). Learnt by an optimizer of its own, without weight decay: under the model's, decay pulls
every s to 0 and the learning rate of the network decides how fast tasks are reweighted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from groupwise._loss_weights import uncertainty
from groupwise.balance import arguments
from groupwise.balance.adam import Learned
from groupwise.balance.arguments import Positive
from groupwise.balance.arrays import TORCH
from groupwise.balance.domain import require_at_least_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property

_KEY = "log variance"


@final
@dataclass(frozen=True)
class Uncertainty(LossMethod):
    """sum_i e^(-s_i) L_i / 2 + s_i / 2 (Kendall, Gal, Cipolla 2018, CVPR), s_i learnt from 0: weights e^(-s_i) / 2.

    Scale: a sum, at the start half the plain one; later each task has about the size |g_i| / (2 L_i).

    Args:
        lr: of the Adam that learns s, by default that of the published multi-task benchmarks.
        variant: "paper"; or "softplus", which puts log(1 + e^L) in the place of L and so takes a loss of any sign.

    Raises:
        BalanceError: a negative loss under "paper" (s would fall, and the weight rise, for ever), naming the task.
    """

    lr: Positive = 0.025
    variant: Literal["paper", "softplus"] = "paper"

    class_properties = frozenset({Property.EQUIVARIANT, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """Under "softplus" the weight has a factor of the loss of the moment."""
        return self.class_properties | ({Property.SEPARATE} if self.variant == "paper" else set())

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] of e^(-s_i) / 2, times sigmoid(L_i) under "softplus"; then one step on s."""
        if self.variant == "paper":
            require_at_least_zero(self, losses, context.tasks, 'use Uncertainty(variant="softplus"), or add a constant')
        s = Learned(memory, _KEY, context.tasks)
        weights: Tensor
        weights, gradient = uncertainty(TORCH, losses, s.value, self.variant)
        s.step(gradient, self.lr)
        return weights
