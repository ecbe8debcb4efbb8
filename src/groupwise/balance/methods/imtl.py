"""Impartial learning, both halves: losses brought to one scale, gradients to equal projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.methods.imtl_g import IMTL_G
from groupwise.balance.methods.imtl_l import IMTL_L
from groupwise.balance.methods.times import Times
from groupwise.balance.properties import Property


@final
@dataclass(frozen=True)
class IMTL(GramianMethod):
    """`Times(IMTL_L(lr), IMTL_G())` (Liu et al. 2021, ICLR): the direction is IMTL-G's, task-only parameters see
    IMTL-L.

    Scale: an affine mean of the gradients of the scaled losses e^(s_i) L_i.

    Args:
        lr: of the Adam that learns s.

    Raises:
        BalanceError: a negative loss, naming the task.
    """

    lr: Positive = 0.025

    class_properties = frozenset({Property.EQUIVARIANT, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] e^(s_i) times IMTL-G's; then one step on s."""
        return self._halves().weights(gramian, context, memory)

    def task_specific_weights(self, context: MethodContext, memory: Memory) -> Tensor | None:
        """[t] e^(s_i)."""
        return self._halves().task_specific_weights(context, memory)

    def _halves(self) -> Times:
        return Times(IMTL_L(self.lr), IMTL_G())
