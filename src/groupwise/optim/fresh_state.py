"""What state an algorithm makes for a parameter that it has not seen before; nobody declares it, so it is tried out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.borrowed import unhooked_step
from groupwise.optim.extra import construct, values_of
from groupwise.optim.probe import Refusal

_ZERO = 1e-6  # Adamax puts its eps where others put nothing
_PLAIN = {"weight_decay": 0.0, "lr": 0.1}  # decay would move the weight, and a tiny rate would hide a state that is it


@dataclass(frozen=True, eq=False)
class FreshState:
    """The state that the classes of a plan begin with."""

    algorithms: TorchAlgorithms

    def is_zero(self, group: Mapping[str, Any], rank: int) -> bool:
        """Whether state of the parameter's own shape is zero in a live group's class, while it sees no gradient.

        A row that is new in a table may then begin with zeros: Adam's may, not Rprop's (a rate) or ASGD's (the weight).
        """
        states = self._made(group, rank, torch.zeros)
        held = [value for state in states for value in state.values() if _is_like(value, rank)]
        return bool(states) and all(map(_is_zero, held))

    def zero_entries(self, group: Mapping[str, Any], rank: int) -> frozenset[str] | None:
        """The names of the floating-point entries for which `is_zero` is true; None if the class refuses the values."""
        for state in self._made(group, rank, torch.zeros):
            like = {name: value for name, value in state.items() if _is_like(value, rank) and value.is_floating_point()}
            return frozenset(name for name, value in like.items() if _is_zero(value))
        return None

    def switched_entries(self, group: Mapping[str, Any], rank: int) -> frozenset[str]:
        """Those of `zero_entries` that the class does not make where one of its switches stands the other way.

        A switch is a value that is true, false or a number that is not 0: `amsgrad` asks for `max_exp_avg_sq`, none
        for `exp_avg_sq`.
        """
        others = [self.zero_entries({**group, **other}, rank) for other in _other_ways(group)]
        own = self.zero_entries(group, rank) or frozenset()
        return frozenset(name for name in own if any(made is not None and name not in made for made in others))

    def is_kept(self, group: Mapping[str, Any], rank: int) -> bool:
        """Whether a live group's class keeps any state: SGD without momentum does not."""
        return any(self._made(group, rank, torch.ones))

    def _made(self, group: Mapping[str, Any], rank: int, gradient: Any) -> list[Mapping[str, Any]]:
        """The state after one step from ones; empty if the class took neither a dense gradient nor a sparse one."""
        cls, arguments = self.algorithms.class_of(group["algorithm"]), self.algorithms[group["algorithm"]].defaults
        values = values_of(group, arguments)
        values |= {name: value for name, value in _PLAIN.items() if name in values}
        for sparse in (False, True) if rank else (False,):
            weight = torch.nn.Parameter(torch.ones((2,) * rank))
            dense = gradient((2,) * rank)
            weight.grad = dense.to_sparse(1) if sparse else dense
            with torch.random.fork_rng(devices=[]), torch.no_grad(), Refusal() as probe_result:
                engine = construct(cls, [weight], values)
                _step(engine)
            if not probe_result.refused:
                return [engine.state.get(weight, {})]
        return []


def _step(engine: torch.optim.Optimizer) -> None:
    for group in engine.param_groups:
        group.update({"capturable": False} if "capturable" in group else {})
    if callable(getattr(engine, "train", None)):
        engine.train()  # type: ignore[attr-defined]  # schedule-free classes refuse to step before it
    unhooked_step(engine)


def _other_ways(group: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each switch of a live group the one value that turns it over; nothing for a number that is 0."""
    for name, value in group.items():
        if type(value) is bool:
            yield {name: not value}
        elif type(value) in (int, float) and value:
            yield {name: type(value)(0)}


def _is_zero(value: torch.Tensor) -> bool:
    return not bool((value.abs() > _ZERO if value.is_floating_point() else value).any())


def _is_like(value: object, rank: int) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == (2,) * rank
