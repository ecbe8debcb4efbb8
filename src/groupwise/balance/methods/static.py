"""Weights that a person states, as numbers or as schedules over the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskValues
from groupwise.balance.by_task import by_task
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.schedules import Schedule


@final
@dataclass(frozen=True, init=False, repr=False)
class Static(LossMethod):
    """sum_i w_i L_i with weights by task. Tuned, they are the row that every other method is to be compared with.

    Scale: as stated; nothing is normalised.

    Args:
        weights: a number or a schedule of `groupwise.schedules` for every task, such as
            `{"seg": 1.0, "depth": linear(0.0, end=0.5)}`. A schedule is evaluated at the number of the balanced update,
            with the balancer's `total_steps` and `steps_per_epoch`.

    Raises:
        BalanceError: a task without a weight (also one that is misspelt), or a schedule whose length nobody gave.
    """

    weights_: TaskValues

    class_properties = frozenset(
        {Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.MEMORYLESS, Property.DETERMINISTIC, Property.SEPARATE}
    )

    def __init__(self, weights: Mapping[str, float | Schedule]) -> None:
        object.__setattr__(self, "weights_", weights)
        arguments.read(self)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the stated weights, schedules at `context.step`."""
        when = context.step, context.total_steps, context.steps_per_epoch
        return by_task(self.weights_).at("the static weight", context.tasks, *when)

    def __repr__(self) -> str:
        return f"Static(weights={self.weights_!r})"
