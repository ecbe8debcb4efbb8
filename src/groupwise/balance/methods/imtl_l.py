"""Impartial losses: each is brought to the same scale by a factor e^s that is learnt.

d/ds (e^s L - s) = e^s L - 1, so s settles where every scaled loss e^s L is 1. It is twice Kendall's uncertainty at -s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.adam import Learned
from groupwise.balance.arguments import Positive
from groupwise.balance.domain import require_at_least_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property

_KEY = "log scale"


@final
@dataclass(frozen=True)
class IMTL_L(LossMethod):
    """sum_i e^(s_i) L_i - s_i, s_i learnt from 0 (Liu et al. 2021, ICLR): weights e^(s_i).

    Scale: a sum, at the start the plain one; later each task has about the size |g_i| / L_i.

    Args:
        lr: of the Adam that learns s.

    Raises:
        BalanceError: a negative loss, naming the task.
    """

    lr: Positive = 0.025

    class_properties = frozenset({Property.EQUIVARIANT, Property.DETERMINISTIC, Property.SEPARATE})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] of e^(s_i); then one step on s."""
        require_at_least_zero(self, losses, context.tasks, 'use Uncertainty(variant="softplus"), or add a constant')
        s = Learned(memory, _KEY, context.tasks)
        weights = s.value.exp()
        s.step(weights * losses - 1, self.lr)
        return weights
