"""A method is a value, and its state is somebody else's.

Three shapes, by what a method looks at (t tasks, n shared parameters):

    losses    [t]    -> [t] weights     `LossMethod`
    Gramian   [t, t] -> [t] weights     `GramianMethod`; the update is J' times the weights
    Jacobian  [t, n] -> [n] update      `JacobianMethod`

A method is a frozen dataclass of its constants. What it learns on the way lives in a `Memory`, by task name, and what
it may look at besides its matrix is a `MethodContext`; so a method can be compared, written to a file and shared
between balancers, and every method is saved, resumed, and left by a task, in one and the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, final

import torch
from torch import Tensor

from groupwise import _pickling
from groupwise._renamed import refuse_renamed
from groupwise.balance.memory import Memory
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

TaskOnly: TypeAlias = Literal["weighted", "unweighted"]

_OURS = "groupwise.balance.methods."
_RENAMED = {
    "heads": "task_only",
    "promises": "class_properties",
    "claims": "properties",
    "own_weights": "task_specific_weights",
}


@final
@_pickling.public("groupwise.balance:MethodContext")
@dataclass(frozen=True, eq=False)
class MethodContext:
    """What a method may look at besides its matrix; rows are tasks, in the order of `tasks`.

    Attributes:
        tasks: the names of the tasks that are present.
        losses: [t] float64 on the CPU, detached, unscaled.
        step: how many balanced updates came before this one.
        splits: the number of entries of each shared parameter in a row of the Jacobian; empty for the other shapes.
        parameters: a label for each of these, under which `Memory.of_rows` keeps what is remembered of it.
        total_steps, steps_per_epoch: the lengths that a scheduled weight may ask for; None where nobody gave them.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    step: int = 0
    splits: tuple[int, ...] = ()
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    parameters: tuple[str, ...] = ()


@_pickling.public("groupwise.balance:Method")
@dataclass(frozen=True)
class Method(ABC):
    """What every method has in common; its three shapes are below."""

    task_only: ClassVar[TaskOnly]
    """Whether task-only parameters see the task's weight, unless the balancer says otherwise."""

    class_properties: ClassVar[frozenset[Property]] = frozenset()
    """What holds for every instance of the class."""

    def __init_subclass__(cls) -> None:
        """Raises `BalanceError` for a member by its name of an earlier version."""
        super().__init_subclass__()
        refuse_renamed(cls, BalanceError, _RENAMED)
        if cls.__module__.startswith(_OURS) and not cls.__name__.startswith("_"):
            _pickling.as_public(cls, f"groupwise.balance:{cls.__name__}")

    @property
    def properties(self) -> frozenset[Property]:
        """What holds for this instance: `class_properties`, unless its variant changes something."""
        return self.class_properties

    @property
    def name(self) -> str:
        """The public name, also the one in a plan file."""
        return type(self).__name__

    def due(self, context: MethodContext, memory: Memory) -> bool:
        """Whether this update needs the matrix. Where it does not, `weights` takes any, and earlier weights stand."""
        return True

    def task_specific_weights(self, context: MethodContext, memory: Memory) -> Tensor | None:
        """[t] what "unweighted" heads are multiplied by all the same; None for nothing. Asked after the weights.

        A method whose second half balances gradients may have a first that scales losses (IMTL, DB-MTL); task-only
        parameters see that half alone.
        """
        return None

    def held_out(self, tasks: Sequence[str]) -> Tensor | None:
        """[t] float64 coefficients of the held-out losses that this method learns from; None if it learns from none.

        Where there are some, `learn` is called before the next weights are asked for.
        """
        return None

    def learn(self, alignments: Tensor, context: MethodContext, memory: Memory) -> None:  # noqa: B027
        """Takes [t] the inner product of each task's gradient with that of the held-out losses (Auto-Lambda)."""

    def after_step(self, context: MethodContext, memory: Memory) -> None:  # noqa: B027  # most methods do nothing here
        """Takes the losses on the same batch after the optimizer's step (FAMO)."""

    def end_epoch(self, memory: Memory) -> None:  # noqa: B027
        """An epoch has ended (DWA)."""


class LossMethod(Method):
    """Weights from the losses alone."""

    task_only = "weighted"

    @abstractmethod
    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] weights from [t] losses, both float64 on the CPU."""

    @final
    def __call__(self, losses: Tensor) -> Tensor:
        """One call that remembers nothing, on tasks named "0", "1", …"""
        return self.weights(losses.double(), anonymous(losses.double()), Memory())


class GramianMethod(Method):
    """Weights from the Gramian of the tasks' gradients."""

    task_only = "unweighted"

    @abstractmethod
    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] weights from the [t, t] Gramian, both float64 on the CPU."""

    @final
    def __call__(self, gramian: Tensor) -> Tensor:
        """One call that remembers nothing, on tasks named "0", "1", … with losses of 1."""
        return self.weights(gramian.double(), anonymous(torch.ones(len(gramian), dtype=torch.float64)), Memory())


class JacobianMethod(Method):
    """An update from the tasks' gradients themselves."""

    task_only = "unweighted"

    @abstractmethod
    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n] update from the [t, n] Jacobian, in its dtype and on its device."""

    @final
    def __call__(self, jacobian: Tensor) -> Tensor:
        """One call that remembers nothing, on tasks named "0", "1", … with losses of 1 and a single parameter."""
        rows, entries = jacobian.shape
        context = anonymous(torch.ones(rows, dtype=torch.float64), (entries,))
        return self.update(jacobian, context, Memory())


def anonymous(losses: Tensor, splits: tuple[int, ...] = ()) -> MethodContext:
    """A first step on tasks that have no names but their numbers."""
    return MethodContext(tuple(str(i) for i in range(len(losses))), losses, 0, splits)
