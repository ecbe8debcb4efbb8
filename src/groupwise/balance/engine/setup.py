"""What a balancer was built with, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, final, get_args

import torch

from groupwise._spelling import shown
from groupwise.balance.engine import places
from groupwise.balance.engine.finite import NonFinite
from groupwise.balance.engine.places import Parameters, Place, Places
from groupwise.balance.engine.ranks.agreement import Ranks
from groupwise.balance.engine.ranks.marks import constants
from groupwise.balance.engine.ranks.process_group import ranks_of
from groupwise.balance.engine.undo import generators_of
from groupwise.balance.method import JacobianMethod, LossMethod, Method, TaskOnly
from groupwise.errors import BalanceError, listed

Distributed: TypeAlias = Literal["joint", "local"]
RouteChoice: TypeAlias = Literal["auto", "sequential", "gramian", "features"]


@final
@dataclass(frozen=True, eq=False)
class Setup:
    """The arguments of a balancer, read.

    Attributes:
        weighted: whether task-only tensors see the weight; otherwise they see 1, or what the method says.
        places: `parameters=` and `at=`.
        ranks: the processes that hold copies of the model, if several do.
        alone: whether every rank is for itself all the same.
    """

    method: Method
    weighted: bool
    places: Places
    route: RouteChoice
    nonfinite: NonFinite
    ranks: Ranks | None
    alone: bool
    total_steps: int | None
    steps_per_epoch: int | None

    @cached_property
    def of_losses(self) -> bool:
        """Whether the method looks at the losses alone."""
        return isinstance(self.method, LossMethod)

    @cached_property
    def generators(self) -> tuple[torch.Generator, ...]:
        """Those that the method was given to draw from."""
        return (*generators_of(self.method),)

    @cached_property
    def shared_settings(self) -> dict[str, str]:
        """What has to be the same on all ranks, in words."""
        task_only = "weighted" if self.weighted else "unweighted"
        places = "with at=" if self.places.at is not None else "without at="
        lengths = f"total_steps={self.total_steps}, steps_per_epoch={self.steps_per_epoch}"
        return {
            "method": self.method.name,
            "constants": f"{self.method.name}({constants(self.method)})",
            "arguments": f"task_only={task_only!r}, route={self.route!r}, nonfinite={self.nonfinite!r}, "
            f"{places}, {lengths}",
        }


def read(
    method: object,
    task_only: TaskOnly | None,
    at: Place | None,
    parameters: Parameters | None,
    lengths: tuple[int | None, int | None],
    route: RouteChoice,
    nonfinite: NonFinite,
    distributed: Distributed,
) -> Setup:
    """Check the arguments of a balancer. Raises `BalanceError`."""
    if not isinstance(method, Method):
        raise BalanceError(_no_method(method))
    _one_of("task_only", task_only, (None, *get_args(TaskOnly)))
    _one_of("route", route, get_args(RouteChoice))
    _one_of("distributed", distributed, get_args(Distributed))
    _one_of("nonfinite", nonfinite, get_args(NonFinite))
    if isinstance(method, JacobianMethod) and task_only == "weighted":
        raise BalanceError(f'{method.name} makes an update, not weights: task_only="weighted" has none to use')
    if isinstance(method, JacobianMethod) and route == "gramian":
        raise BalanceError(f'{method.name} needs the rows themselves: route="gramian" never has them together')
    if at is not None and isinstance(method, LossMethod | JacobianMethod):
        what = "the losses alone" if isinstance(method, LossMethod) else "whole rows"
        raise BalanceError(f"at= is the layer at which a Gramian method looks; {method.name} looks at {what}")
    for name, given in zip(("total_steps", "steps_per_epoch"), lengths, strict=True):
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise BalanceError(f"{name} is a whole number above 0, not {shown(given)}")
    where = places.read(parameters, at)
    alone = distributed == "local"
    group = None if alone else ranks_of(parameters)
    if group is not None and group.parts is not None and isinstance(method, JacobianMethod):
        raise BalanceError(
            f"{method.name} looks at the entries of whole rows, and under fully_shard a rank has parts of them: "
            "use a Gramian method, or DistributedDataParallel"
        )
    weighted = (task_only or method.task_only) == "weighted"
    return Setup(method, weighted, where, route, nonfinite, group, alone, *lengths)


def _no_method(given: object) -> str:
    if isinstance(given, type) and issubclass(given, Method):
        return f"{given.__name__} is the class of a method: write {given.__name__}()"
    if isinstance(given, str):
        example = given if given.isidentifier() else "CAGrad"
        return f"a method is an object, such as {example}(), not a name; a plan file names one (Balancer.load)"
    if callable(given):
        return (
            f"{shown(given)} does not say what it looks at: wrap it in FromLosses(f) ([t] losses to [t] weights), "
            "FromGramian(f) ([t, t] to [t] weights) or FromJacobian(f) ([t, n] to [n])"
        )
    if isinstance(given, Mapping):
        return f"{shown(given)} is no balancing method: fixed weights are Static({shown(given)})"
    return f"{shown(given)} ({type(given).__name__}) is no balancing method"


def _one_of(what: str, given: object, known: tuple[object, ...]) -> None:
    if given not in known:
        raise BalanceError(f"{what} is {listed(shown(option) for option in known)}, not {shown(given)}")
