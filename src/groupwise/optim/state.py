"""Resume by name.

A checkpoint in torch's layout is read into a normal form (`Saved`: values per group, state per parameter *name*), and
from there laid out again for the groups that are live now, whatever their number, order or names. The same transfer
serves `load_state_dict` and `regroup`, and both are pure until the last assignment: a failed load changes nothing.

Whose values stand: the checkpoint's, unless this plan schedules the hyperparameter, or declares it differently from the
plan that wrote the checkpoint. Name, algorithm, network and freezing are always the plan's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from groupwise.errors import StateError, listed
from groupwise.optim.live import OURS

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


@dataclass(frozen=True)
class SavedParameter:
    """What a checkpoint holds for one parameter: its state, and the values of the group that it was in."""

    state: Mapping[str, Any] | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Saved:
    """A checkpoint by parameter name, and the entries of `state` that belong to no parameter."""

    parameters: Mapping[str, SavedParameter]
    loose: Mapping[Any, Any] = field(default_factory=dict)


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


def read(state_dict: Mapping[str, Any], names: Sequence[str], aliases: Mapping[str, str]) -> Saved:
    """A checkpoint in normal form.

    Args:
        state_dict: torch's layout: `state` and `param_groups`; parameters by position, or by name (DCP).
        names: the parameters as the model orders them, for a checkpoint that has no names.
        aliases: every name that a parameter goes by, to the first.

    Raises:
        StateError: not an optimizer's checkpoint, or one without names that cannot be matched by position.
    """
    groups = _groups(state_dict)
    state = dict(state_dict["state"])
    parameters: dict[str, SavedParameter] = {}
    for group, own in zip(groups, _names(groups, names), strict=True):
        values = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for identity, name in zip(group["params"], own, strict=True):
            known = _known(name, aliases)
            parameters[known] = SavedParameter(state.pop(identity, None), values)
    return Saved(parameters, state)


def transfer(
    saved: Saved, live: Sequence[Mapping[str, Any]], scheduled: Mapping[str, Iterable[str]]
) -> tuple[dict[str, Any], LoadReport]:
    """Lay a checkpoint out for the live groups, in torch's layout by position, and say what became of it.

    Args:
        saved: the checkpoint.
        live: the groups that are to be filled.
        scheduled: by group name, the hyperparameters that the plan schedules.

    Raises:
        StateError: no parameter of the checkpoint is known here, or a state's shape is not its parameter's.
    """
    here = [name for group in live for name in group["param_names"]]
    report = _report(saved, live)
    if saved.parameters and len(report.new) == len(here):
        raise StateError(
            f"no parameter of the checkpoint is known here: it has {listed(saved.parameters, 3)}, "
            f"this optimizer has {listed(here, 3)}"
        )
    restarted = set(report.restarted)
    state: dict[Any, Any] = dict(saved.loose)
    groups, position = [], 0
    for group in live:
        count = len(group["params"])
        for offset, (name, p) in enumerate(zip(group["param_names"], group["params"], strict=True)):
            kept = saved.parameters.get(name)
            if kept is not None and kept.state is not None and name not in restarted:
                _check_shapes(name, p, kept.state)
                state[position + offset] = kept.state
        values = _values(group, saved, set(scheduled.get(group["name"], ())))
        groups.append({**group, **values, "params": list(range(position, position + count))})
        position += count
    return {"state": state, "param_groups": groups}, report


def _values(group: Mapping[str, Any], saved: Saved, scheduled: set[str]) -> dict[str, Any]:
    """The values that the checkpoint decides for a live group: those on which all of its parameters agree."""
    known = [saved.parameters[name].values for name in group["param_names"] if name in saved.parameters]
    known = [values for values in known if values.get("algorithm", group["algorithm"]) == group["algorithm"]]
    if not known:
        return {}
    told = group.get("declared", {})
    before = known[0].get("declared", told)
    edited = {key for key in {*told, *before} if told.get(key) != before.get(key)} | scheduled
    if "lr" in edited:
        edited.add("initial_lr")
    kept = {key: value for key, value in known[0].items() if key not in OURS and key not in edited}
    return {key: value for key, value in kept.items() if all(_equal(v.get(key), value) for v in known[1:])}


def _report(saved: Saved, live: Sequence[Mapping[str, Any]]) -> LoadReport:
    moved, new, restarted = [], [], []
    for group in live:
        for name in group["param_names"]:
            kept = saved.parameters.get(name)
            if kept is None:
                new.append(name)
            elif kept.values.get("algorithm", group["algorithm"]) != group["algorithm"]:
                restarted.append(name)
            elif kept.values.get("name", group["name"]) != group["name"]:
                moved.append(name)
    here = {name for group in live for name in group["param_names"]}
    lost = [name for name in saved.parameters if name not in here]
    return LoadReport(tuple(moved), tuple(new), tuple(lost), tuple(restarted))


def _groups(state_dict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    shaped = isinstance(state_dict, Mapping) and "state" in state_dict and "param_groups" in state_dict
    groups = state_dict["param_groups"] if shaped else None
    if not isinstance(groups, list) or not all(isinstance(g, Mapping) and "params" in g for g in groups):
        given = listed(map(str, state_dict)) if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise StateError(f"not an optimizer's state_dict: it needs 'state' and 'param_groups', this has {given}")
    return groups


def _names(groups: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Sequence[str]]:
    """The parameters' names, group by group: stored, or the ids themselves, or by position where that is sure."""
    if all("param_names" in group for group in groups):
        return [group["param_names"] for group in groups]
    if all(isinstance(identity, str) for group in groups for identity in group["params"]):
        return [group["params"] for group in groups]
    count = sum(len(group["params"]) for group in groups)
    if len(groups) != 1 or count != len(names):
        raise StateError(
            f"the checkpoint has no parameter names, {len(groups)} groups and {count} parameters; by position only one "
            f"group with this model's {len(names)} parameters can be matched. Save it again from an optimizer built "
            "with named_parameters()"
        )
    return [names]


def _known(name: str, aliases: Mapping[str, str]) -> str:
    """A saved name as this model says it: seen through wrappers, and by the first of a tied parameter's names."""
    if name in aliases:
        return aliases[name]
    bare = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return aliases.get(bare, name)


def _check_shapes(name: str, p: torch.Tensor, state: Mapping[str, Any]) -> None:
    for key, value in state.items():
        same_rank = isinstance(value, torch.Tensor) and value.ndim == p.ndim and value.ndim > 0
        if same_rank and value.shape != p.shape and value.numel() >= p.numel():
            raise StateError(
                f"{name!r} has shape {tuple(p.shape)}, but {key!r} in the checkpoint has {tuple(value.shape)}: "
                "this is the state of another parameter"
            )


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    return a == b
