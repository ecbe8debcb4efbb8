"""What state an algorithm makes for a parameter that it has not seen before; nobody declares it, so it is tried out."""

from __future__ import annotations

from collections.abc import Mapping
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

    def zero_entries(self, group: Mapping[str, Any], rank: int) -> frozenset[str]:
        """The names of the entries for which `is_zero` is true, one by one."""
        made = (pair for state in self._made(group, rank, torch.zeros) for pair in state.items())
        return frozenset(name for name, value in made if _is_like(value, rank) and _is_zero(value))

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


def _is_zero(value: torch.Tensor) -> bool:
    return float(value.abs().max()) <= _ZERO


def _is_like(value: object, rank: int) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == (2,) * rank
