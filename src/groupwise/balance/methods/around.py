"""A method around another.

The inner one has a memory of its own inside this one's; every call is passed on to it. A wrapper that fits
several shapes is built as the one of its inner method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Inner
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.errors import BalanceError

_PART = "inner"


@dataclass(frozen=True)
class Around(Method):
    """What wrappers have in common.

    Args:
        method: the inner one.
    """

    method: Inner

    def __post_init__(self) -> None:
        arguments.read(self)
        if self.method.name == "Periodic":
            raise BalanceError(f"{self.name}: Periodic goes outside: write Periodic({self.name}(…), n)")

    def after_step(self, context: MethodContext, memory: Memory) -> None:
        """Pass it on."""
        self.method.after_step(context, inside(memory))

    def end_epoch(self, memory: Memory) -> None:
        """Pass it on."""
        self.method.end_epoch(inside(memory))

    def task_specific_weights(self, context: MethodContext, memory: Memory) -> Tensor | None:
        """The inner one's."""
        return self.method.task_specific_weights(context, inside(memory))


def inside(memory: Memory) -> Memory:
    """The memory of the inner method."""
    return memory.part(_PART)


def among(context: MethodContext, chosen: Sequence[int]) -> MethodContext:
    """What is known of some of the tasks."""
    return replace(context, tasks=tuple(context.tasks[i] for i in chosen), losses=context.losses[list(chosen)])


def shape_of(method: object) -> type[Method] | None:
    """Which of the three shapes it has."""
    return next((shape for shape in (LossMethod, GramianMethod, JacobianMethod) if isinstance(method, shape)), None)
