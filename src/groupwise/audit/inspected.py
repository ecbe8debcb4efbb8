"""The program as the checks see it: parameters, who owns them, who drives the rates, which loss reaches what.

Nothing here is the user's own object except the tensors, whose identity is the whole point: a parameter is owned if
*this* tensor stands in a group, whatever its name or its value. Checks are pure functions of this description.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from groupwise.audit.graph import Reach
from groupwise.audit.naming import brief
from groupwise.audit.record import Record
from groupwise.select import ParameterInfo

_NOT_SETTINGS = {"params", "param_names"}


@final
@dataclass(frozen=True, eq=False)
class Group:
    """One parameter group.

    Args:
        optimizer: the name of the optimizer that holds it.
        index: its position there.
        kinds: the class names of its algorithm, bases included.
        tensors: its parameters.
        names: what the optimizer calls them, by position; empty where it knows no names.
        settings: everything else in the group.
    """

    optimizer: str
    index: int
    kinds: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its own name, or its position."""
        return str(self.settings.get("name") or f"group {self.index}")

    @property
    def lr(self) -> float:
        """Its learning rate; nan where the algorithm has none, or finds its own."""
        return self.number("lr", math.nan)

    def number(self, setting: str, otherwise: float = 0.0) -> float:
        """A setting as a number; `otherwise` where there is none, or it is no number."""
        return number_of(self.settings.get(setting), otherwise)


@final
@dataclass(frozen=True, eq=False)
class Owner:
    """An optimizer: the name that the caller gave it, its class, its groups, and what it clips by itself in a step."""

    name: str
    kind: str
    groups: tuple[Group, ...]
    clipped: frozenset[int] = frozenset()

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that it holds, as often as it holds it."""
        return (tensor for group in self.groups for tensor in group.tensors)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


@final
@dataclass(frozen=True, eq=False)
class Driver:
    """A scheduler.

    Args:
        name: the name that the caller gave it.
        kinds: its class names, bases included.
        optimizer: the name of the optimizer that it drives; empty where it drives none of those given.
        tensors: what stands in the groups that it drives.
        last: the learning rates that it last wrote, by group; empty where it does not say.
        bases: the learning rates that it began from, by group; empty where it does not say.
        own: whether its class is neither torch's nor ours.
    """

    name: str
    kinds: tuple[str, ...]
    optimizer: str
    tensors: tuple[torch.Tensor, ...]
    last: tuple[float, ...]
    bases: tuple[float, ...] = ()
    own: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.kinds[0]})"


@final
@dataclass(frozen=True, eq=False)
class Program:
    """What is audited; `reach` is None without losses, `record` without a watched loop. `drifting` are the frozen norms
    whose running statistics moved in the loop, or while the losses were computed."""

    parameters: tuple[ParameterInfo, ...]
    optimizers: tuple[Owner, ...]
    schedulers: tuple[Driver, ...] = ()
    reach: Reach | None = None
    record: Record | None = None
    drifting: tuple[str, ...] = ()

    @functools.cached_property
    def by_tensor(self) -> Mapping[int, ParameterInfo]:
        """The model's parameters by the identity of their tensors."""
        return {id(info.parameter): info for info in self.parameters}

    @functools.cached_property
    def owners(self) -> Mapping[int, Sequence[Group]]:
        """The groups that hold a tensor, by its identity."""
        found: dict[int, list[Group]] = {}
        for owner in self.optimizers:
            for group in owner.groups:
                for tensor in group.tensors:
                    found.setdefault(id(tensor), []).append(group)
        return found

    @functools.cached_property
    def unowned(self) -> tuple[ParameterInfo, ...]:
        """Trainable parameters that stand in no group."""
        return tuple(i for i in self.parameters if i.requires_grad and id(i.parameter) not in self.owners)

    @functools.cached_property
    def reached(self) -> frozenset[int] | None:
        """The tensors that some loss reaches, by identity; None where that is not known."""
        return None if self.reach is None or self.reach.opaque else frozenset().union(*self.reach.tasks.values())

    @functools.cached_property
    def used(self) -> frozenset[int] | None:
        """The tensors that the forward of an example used, by identity; None without an example."""
        if all(info.basis is None for info in self.parameters):
            return None
        return frozenset(id(i.parameter) for i in self.parameters if i.basis is None or i.basis.reached)

    def held(self, group: Group) -> list[ParameterInfo]:
        """The model's parameters in a group."""
        return [self.by_tensor[id(tensor)] for tensor in group.tensors if id(tensor) in self.by_tensor]

    def held_by(self, owner: Owner) -> list[ParameterInfo]:
        """The model's parameters in the groups of an optimizer."""
        return [info for group in owner.groups for info in self.held(group)]

    @property
    def loop(self) -> Record:
        """The watched loop; an empty one where none was watched."""
        return self.record or Record((), {}, frozenset())

    def drivers(self, owner: Owner) -> list[Driver]:
        """The schedulers that drive an optimizer."""
        return [driver for driver in self.schedulers if driver.optimizer == owner.name]

    def brief(self, infos: Iterable[ParameterInfo]) -> str:
        """Parameters in few words, whole modules by their names."""
        return brief(names(infos), names(self.parameters))


def number_of(value: Any, otherwise: float = math.nan) -> float:
    """A setting as a number: groups hold whatever an algorithm takes, `None` and texts included."""
    try:
        return otherwise if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return otherwise


def alike(one: float, other: float) -> bool:
    """Whether two rates are the same, as far as both are known."""
    return math.isnan(one) or math.isnan(other) or math.isclose(one, other)


def names(infos: Iterable[ParameterInfo]) -> tuple[str, ...]:
    """The first name of each."""
    return tuple(info.name for info in infos)


def settings_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a live group holds besides its parameters."""
    return {key: value for key, value in group.items() if key not in _NOT_SETTINGS}
