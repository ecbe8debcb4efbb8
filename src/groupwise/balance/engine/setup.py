"""What a balancer was built with, checked, and the route that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from groupwise._spelling import shown
from groupwise.balance.engine import places
from groupwise.balance.engine.cut import AUTO, cut
from groupwise.balance.engine.finite import NonFinite
from groupwise.balance.engine.places import Parameters, Place
from groupwise.balance.engine.problem import Problem, problem
from groupwise.balance.engine.ranks.group import Ranks
from groupwise.balance.engine.ranks.told import ranks_of
from groupwise.balance.engine.routes.features import Features
from groupwise.balance.engine.routes.looked import Batched, Layer
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.sequential import sequential
from groupwise.balance.engine.routes.weighted import Weighted
from groupwise.balance.engine.rows import Buffers
from groupwise.balance.method import Heads, JacobianMethod, LossMethod, Method
from groupwise.errors import BalanceError, listed

Together: TypeAlias = Literal["auto", "alone"]
Cost: TypeAlias = Literal["auto", "sequential", "gramian", "features"]


@final
@dataclass(frozen=True, eq=False)
class Setup:
    """The arguments of a balancer, read.

    Attributes:
        weighted: whether task-only tensors see the weight; otherwise they see 1, or what the method says.
        layer: the parameters of `at=`; None without.
        named: the tensors of `parameters=` by name; None without.
        candidates: these tensors, all that may count as shared; None for all.
        ranks: the processes that hold copies of the model, if several do.
        alone: whether every rank is for itself all the same.
    """

    method: Method
    weighted: bool
    layer: tuple[Tensor, ...] | None
    named: Mapping[str, Tensor] | None
    candidates: frozenset[Tensor] | None
    cost: Cost
    nonfinite: NonFinite
    ranks: Ranks | None
    alone: bool
    total_steps: int | None
    steps_per_epoch: int | None

    def problem(self, losses: Mapping[str, Tensor], scale: Tensor | None) -> Problem:
        """The losses with their graph."""
        return problem(losses, self.candidates, scale)

    def weighing(self, losses: Mapping[str, Tensor], scale: Tensor | None) -> Weighted:
        """The route for weights that need no look."""
        return Weighted(losses, scale, None if self.weighted else self.problem(losses, scale))

    def looking(self, stated: Problem, features: object, buffers: Buffers, columns: tuple[Tensor, ...] | None) -> Route:
        """The route that looks at gradients; `cost="auto"` is decided here."""
        if not stated.shared and features is None and self.layer is None:
            return sequential(stated, buffers, columns)  # a trunk that is frozen: there is nothing to look at
        if features is not None or self.cost == "features":
            place = AUTO if features is None else features
            return Features(*cut(stated, place), isinstance(place, str))
        if self.layer is not None:
            return Layer(stated, self.layer)
        if self.cost == "gramian" or (self.cost == "auto" and columns is None and not _fit(stated, buffers)):
            return Batched(stated)
        return sequential(stated, buffers, columns)


def read(
    method: object,
    heads: Heads | None,
    at: Place | None,
    parameters: Parameters | None,
    lengths: tuple[int | None, int | None],
    cost: Cost,
    nonfinite: NonFinite,
    ranks: Together,
) -> Setup:
    """Check the arguments of a balancer. Raises `BalanceError`."""
    if not isinstance(method, Method):
        raise BalanceError(_no_method(method))
    _one_of("heads", heads, (None, *get_args(Heads)))
    _one_of("cost", cost, get_args(Cost))
    _one_of("ranks", ranks, get_args(Together))
    _one_of("nonfinite", nonfinite, get_args(NonFinite))
    if isinstance(method, JacobianMethod) and heads == "weighted":
        raise BalanceError(f'{method.name} makes an update, not weights: heads="weighted" has none to use')
    if isinstance(method, JacobianMethod) and cost == "gramian":
        raise BalanceError(f'{method.name} needs the rows themselves: cost="gramian" never has them together')
    if at is not None and isinstance(method, LossMethod | JacobianMethod):
        what = "the losses alone" if isinstance(method, LossMethod) else "whole rows"
        raise BalanceError(f"at= is the layer at which a Gramian method looks; {method.name} looks at {what}")
    for name, given in zip(("total_steps", "steps_per_epoch"), lengths, strict=True):
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise BalanceError(f"{name} is a whole number above 0, not {shown(given)}")
    named = None if parameters is None else places.by_name(parameters)
    layer = None if at is None else places.layer(at, named)
    candidates = None if named is None else frozenset(named.values())
    alone = ranks == "alone"
    group = None if alone else ranks_of(parameters)
    if group is not None and group.parts is not None:
        candidates = None  # the graph knows the unsharded ones alone
        if isinstance(method, JacobianMethod):
            raise BalanceError(
                f"{method.name} looks at the entries of whole rows, and under fully_shard a rank has parts of them: "
                "use a Gramian method, or DistributedDataParallel"
            )
    weighted = (heads or method.heads) == "weighted"
    return Setup(method, weighted, layer, named, candidates, cost, nonfinite, group, alone, *lengths)


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
    return f"{shown(given)} ({type(given).__name__}) is no balancing method"


def _one_of(what: str, given: object, known: tuple[object, ...]) -> None:
    if given not in known:
        raise BalanceError(f"{what} is {listed(shown(option) for option in known)}, not {shown(given)}")


def _fit(stated: Problem, buffers: Buffers) -> bool:
    """Whether the rows have a place: they do if they had one before, or if nobody can tell."""
    on_device = [leaf for leaf in stated.shared if leaf.is_cuda]
    if not on_device or buffers.held:
        return True
    device = on_device[0].device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return len(stated.tasks) * sum(leaf.numel() * leaf.element_size() for leaf in on_device) < 0.8 * free
