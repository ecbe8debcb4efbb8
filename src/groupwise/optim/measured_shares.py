"""Gradient shares: the averages of squared gradient norms, kept parameter by parameter, compared unit by unit.

Averages of squares add up, so those of a layer, a group or a network are sums of those of its tensors, whatever groups
these are in now. They are added up in float64, and kept as roots: in float32 a gradient of 1e-25 or 1e25 has no square.
Units whose rates have the same factor are compared with one another, also those that are not stepped at the moment: of
alternating networks each keeps the average of its own last step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch

from groupwise import _torch
from groupwise.optim.clip_factors import joint_norms
from groupwise.optim.live import names_of
from groupwise.optim.measured_formulas import averaged, shared
from groupwise.plan import GradientShare
from groupwise.plan.measured_factors import SharePer

State: TypeAlias = MutableMapping[Any, Any]
NORM: str = "gradient_norm"
"""In the state of a parameter: the root of the exponential average of its squared gradient norm, in float32."""


def averaged_in(device: torch.device) -> torch.dtype:
    """What squares of gradient norms are added up in: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


class Stepped(Protocol):
    """A group in a step: see `measured_rates.Rated`."""

    group: dict[str, Any]
    params: list[torch.Tensor]
    owners: list[int]
    span: slice


@dataclass
class Found:
    """What shares come to in a step: by group the factor of every piece, and the averages that are to be kept."""

    factors: dict[int, torch.Tensor] = field(default_factory=dict)
    averages: list[tuple[list[torch.Tensor], torch.Tensor]] = field(default_factory=list)

    def of(self, own: Stepped) -> torch.Tensor | None:
        """The factor of every piece of a group; None where it has none."""
        return self.factors.get(id(own.group))

    def keep(self, state: State) -> None:
        """Write the averages."""
        for params, values in self.averages:
            held, sources = list[torch.Tensor](), list[torch.Tensor]()
            for p, value in zip(params, values.unbind(), strict=True):
                kept = state.setdefault(p, {}).get(NORM)
                if kept is not None and kept.dtype == value.dtype and kept.device == value.device:
                    held.append(kept)
                    sources.append(value)
                else:
                    state[p][NORM] = value.clone()
            if held:
                _torch.copy(held, sources)


class Shares:
    """The gradient shares of a plan, by the names of their groups."""

    def __init__(self, factors: Mapping[str, GradientShare | None]) -> None:
        self._factors = {name: factor for name, factor in factors.items() if factor is not None}

    def found(
        self,
        rated: Sequence[Stepped],
        everything: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Any],
        gradients: torch.Tensor | None,
    ) -> Found:
        """The shares with the gradients of this step, whose norms are `gradients`, [pieces]. Nothing is written."""
        found = Found()
        if gradients is None or not self._factors:
            return found
        own: dict[GradientShare, list[Stepped]] = {}
        for each in rated:
            if each.group["name"] in self._factors:
                own.setdefault(self._factors[each.group["name"]], []).append(each)
        for factor, members in own.items():
            averages = {id(p): value for each in members for p, value in _averages(factor, each, state, gradients)}
            for each in members:
                roots = torch.stack([averages[id(p)] for p in each.params]).sqrt()
                found.averages.append((each.params, roots.float()))
            self._share(factor, members, everything, state, averages, found)
        return found

    def _share(
        self,
        factor: GradientShare,
        members: Sequence[Stepped],
        everything: Sequence[Mapping[str, Any]],
        state: Mapping[Any, Any],
        averages: dict[int, torch.Tensor],
        found: Found,
    ) -> None:
        units: dict[str, int] = {}
        unit_of: dict[int, int] = {}
        values: list[torch.Tensor] = []
        device = next(iter(averages.values())).device
        for group in everything:
            if self._factors.get(group.get("name", "")) != factor or group.get("frozen", False):
                continue
            for name, p in zip(names_of(group), group["params"], strict=True):
                value = averages[id(p)].sqrt() if id(p) in averages else (state.get(p) or {}).get(NORM)
                if value is not None:
                    unit_of[id(p)] = units.setdefault(unit(factor.per, name, group), len(units))
                    values.append(value.to(device, averaged_in(device)))
        norms = _norms_of_units(torch.stack(values), [*unit_of.values()], len(units))
        factors = shared(factor, norms)
        for each in members:
            found.factors[id(each.group)] = _taken(factors, [unit_of[id(each.params[i])] for i in each.owners])


def _norms_of_units(norms: torch.Tensor, units: Sequence[int], count: int) -> torch.Tensor:
    """The norm of each unit, shape [count], from those of its tensors.

    On a CPU squares are added up in float64, one by one. Elsewhere that would come out otherwise at each run.
    """
    if _has_indices(norms):
        sums = torch.zeros(count, dtype=torch.float64)
        return sums.index_add_(0, torch.tensor(units), norms.double().square()).sqrt_()
    places: list[list[int]] = [[] for _ in range(count)]
    for i, at in enumerate(units):
        places[at].append(i)
    return torch.as_tensor(joint_norms(norms, places))


def _taken(vector: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """The numbers at the places, shape [places]. Elsewhere than on a CPU no index has to be sent there."""
    if _has_indices(vector):
        return vector[torch.tensor(places)]
    return torch.stack([vector[i] for i in places])


def _has_indices(vector: torch.Tensor) -> bool:
    return vector.device.type == "cpu" and not torch.compiler.is_compiling()


def unit(per: SharePer, name: str, group: Mapping[str, Any]) -> str:
    """The unit that a parameter of a group belongs to."""
    if per == "network":
        return str(group.get("network", ""))
    if per == "group":
        return str(group.get("name", ""))
    return name if per == "parameter" else name.rpartition(".")[0] or str(group.get("network", ""))


def _averages(
    factor: GradientShare, own: Stepped, state: Mapping[Any, Any], gradients: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The parameters of a group, and the average of each with this step's gradient."""
    squares = gradients[own.span].to(averaged_in(gradients.device)).square()
    if len(own.owners) > len(own.params):
        squares = torch.stack([squares[[i for i, at in enumerate(own.owners) if at == p]].sum() for p in
                               range(len(own.params))])  # fmt: skip
    held = [(state.get(p) or {}).get(NORM) for p in own.params]
    before = torch.stack([
        torch.zeros_like(square) if kept is None else kept.to(square.device, square.dtype).square()
        for kept, square in zip(held, squares.unbind(), strict=True)
    ])  # fmt: skip
    return zip(own.params, averaged(factor, before, squares).unbind(), strict=True)
