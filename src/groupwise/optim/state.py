"""Resume by name.

A checkpoint in normal form (`Saved`: values per group, state per parameter *name*) is laid out for the groups that are
live now, whatever their number, order or names. The same transfer serves loading and `regroup`, and it is pure: a
checkpoint that does not fit changes nothing.

Whose values stand (`Values`): the checkpoint's, unless this plan schedules the hyperparameter, or declares it
differently from the plan that wrote the checkpoint; or either side's alone. Name, algorithm, network, clipping and
freezing are always the plan's, and so are the values of a parameter whose algorithm has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch

from groupwise.errors import StateError, listed, unknown
from groupwise.optim.fitting import check_shapes, foreign_keys, same_algorithm
from groupwise.optim.live import OURS
from groupwise.optim.saved import Saved

Values: TypeAlias = Literal["edited", "checkpoint", "plan"]
"""Whose values stand: the checkpoint's but for what the plan schedules or has edited, all of its, or the plan's."""


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by parameter name.

    `moved`: now in a group of another name. `new`: not in the checkpoint, so their state starts afresh. `lost`: in the
    checkpoint, but in no group now. `restarted`: their algorithm changed, so their state starts afresh.
    """

    moved: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [(name, getattr(self, name)) for name in ("moved", "new", "lost", "restarted")]
        told = [f"{len(names)} {what} ({listed(names, 3)})" for what, names in parts if names]
        return "; ".join(told) or "every parameter found its state"


@dataclass(frozen=True)
class Claims:
    """What a plan has to say about values: `scheduled`, by group name the hyperparameters that it schedules;
    `arguments`, by algorithm the hyperparameters that its constructor takes; and whose `values` stand."""

    scheduled: Mapping[str, Iterable[str]]
    arguments: Mapping[str, Iterable[str]]
    values: Values = "edited"

    def __post_init__(self) -> None:
        if self.values not in get_args(Values):
            raise StateError(unknown("choice of values", str(self.values), get_args(Values)))

    def of(self, group: Mapping[str, Any], before: Mapping[str, Any]) -> set[str]:
        """The keys that are the plan's in a live group whose parameters were `declared` as in `before`."""
        if self.values == "checkpoint":
            return set()
        told = group.get("declared", {})
        edited = {key for key in {*told, *before} if told.get(key) != before.get(key)}
        own = edited | set(self.scheduled.get(group["name"], ()))
        if self.values == "plan":
            own = set(self.arguments.get(group["algorithm"], ())) | set(told)
        return own | {"initial_lr"} if "lr" in own else own


def transfer(saved: Saved, live: Sequence[Mapping[str, Any]], claims: Claims) -> tuple[dict[str, Any], LoadReport]:
    """Lay a checkpoint out for the live groups, in torch's layout by position, and say what became of it.

    Args:
        saved: the checkpoint.
        live: the groups that are to be filled.
        claims: what the plan has to say about values.

    Raises:
        StateError: no parameter of the checkpoint is known here, a state's shape is not its parameter's, or the
            checkpoint's values are to stand and are not one value in a group.
    """
    report = _report(saved, live)
    here = [name for group in live for name in group["param_names"]]
    if here and len(report.new) == len(here):
        raise StateError(
            f"no parameter of the checkpoint is known here: it has {listed(saved.parameters, 3) or 'none'}, "
            f"this optimizer has {listed(here, 3)}"
        )
    afresh = {*report.new, *report.restarted}
    state: dict[Any, Any] = dict(saved.loose)
    groups, position = [], 0
    for group in live:
        positions = range(position, position + len(group["params"]))
        position = positions.stop
        groups.append({**group, **_values(group, saved, claims), "params": list(positions)})
        for own, name, p in zip(positions, group["param_names"], group["params"], strict=True):
            kept = None if name in afresh else saved.parameters[name].state
            if kept is not None:
                check_shapes(name, p, kept, group["algorithm"])
                state[own] = kept
    return {"state": state, "param_groups": groups}, report


def _values(group: Mapping[str, Any], saved: Saved, claims: Claims) -> dict[str, Any]:
    """The values that the checkpoint decides for a live group: those on which all of its parameters agree."""
    known = {name: saved.parameters[name].values for name in group["param_names"] if name in saved.parameters}
    known = {name: values for name, values in known.items() if same_algorithm(values, group)}
    if not known:
        return {}
    first, *others = known.values()
    own = claims.of(group, first.get("declared", group.get("declared", {}))) | foreign_keys(first)
    kept = {key: value for key, value in first.items() if key not in OURS and key not in own}
    split = [key for key, value in kept.items() if not all(_equal(other.get(key), value) for other in others)]
    if split and claims.values == "checkpoint":
        who = {repr(values.get(split[0])): name for name, values in reversed(known.items())}
        told = listed((f"{value} for {name!r}" for value, name in reversed(who.items())), 3)
        raise StateError(
            f"the checkpoint's values cannot stand in group {group['name']!r}: {split[0]} was {told}. Keep these apart "
            "in the plan, or load with values='edited'"
        )
    return {key: value for key, value in kept.items() if key not in split}


def _report(saved: Saved, live: Sequence[Mapping[str, Any]]) -> LoadReport:
    moved, new, restarted = [], [], []
    for group in live:
        for name in group["param_names"]:
            kept = saved.parameters.get(name)
            if kept is None:
                new.append(name)
            elif not same_algorithm(kept.values, group):
                restarted.append(name)
            elif kept.values.get("name", group["name"]) != group["name"]:
                moved.append(name)
    here = {name for group in live for name in group["param_names"]}
    lost = [name for name in saved.parameters if name not in here]
    return LoadReport(tuple(moved), tuple(new), tuple(lost), tuple(restarted))


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    return a == b
