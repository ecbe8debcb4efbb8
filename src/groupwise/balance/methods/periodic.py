"""Weights recomputed now and then: n - 1 of n updates cost one backward.

The weights of most methods drift slowly against the steps of training, while the gradients of every task alone are what
balancing costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance.arguments import Times
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, Method, MethodContext
from groupwise.balance.methods.around import Around, inside
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

_WEIGHT, _LAST = "weight", "last computed"
_KEPT = frozenset({Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})


@final
@dataclass(frozen=True)
class Periodic(Around, GramianMethod):
    """The inner method's weights at the first update and at every n-th after it; in between the last ones stand.

    A task that was not there when they were computed keeps those that it had before. If it never had any, it gets the
    mean of the others', and where no task that is present has any, they are computed out of turn.

    Scale: the inner method's, but of gradients of up to n - 1 updates ago: a method whose weights follow the scale of
    the gradients (Nash-MTL) lags behind it.

    Args:
        n: one update in n computes weights.
    """

    n: Times = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.method, GramianMethod):
            raise BalanceError(
                f"Periodic: {_unfit(self.method)}; give a method that weights gradients, such as CAGrad()"
            )

    @property
    def properties(self) -> frozenset[Property]:
        """Of weights that may be old."""
        return self.method.properties & _KEPT

    def due(self, context: MethodContext, memory: Memory) -> bool:
        """Every n updates, or where nothing is known of any task."""
        last = float(memory.of_run(_LAST, -1.0))
        young = 0 <= last <= context.step < last + self.n
        return not young or not bool(memory.has_tasks(_WEIGHT, context.tasks).any())

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the inner method's if they are due, and otherwise those that stand: `gramian` is not looked at."""
        if not self.due(context, memory):
            known = memory.has_tasks(_WEIGHT, context.tasks)
            weights = memory.of_tasks(_WEIGHT, context.tasks, 0.0)
            return torch.where(known, weights, weights[known].mean())
        weights = self.method.weights(gramian, context, inside(memory))  # type: ignore[attr-defined]
        memory.keep_tasks(_WEIGHT, context.tasks, weights)
        memory.keep_run(_LAST, float(context.step))
        return memory.of_tasks(_WEIGHT, context.tasks, 0.0)


def _unfit(method: Method) -> str:
    if isinstance(method, JacobianMethod):
        return f"{method.name} makes an update, and there are no weights that could stand"
    return f"{method.name} looks at losses alone, and costs nothing to ask each time"
