"""A checkpoint in normal form: values and state per parameter *name*, whatever layout it was written in.

Torch's layout numbers parameters by position; DCP's names them; a plain `torch.optim` checkpoint may have neither
names nor this optimizer's groups. All become one `Saved`, or an error: a checkpoint in which it is not certain whose
state is whose is never guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, TypeAlias

import torch

from groupwise._wrappers import without_wrappers
from groupwise.errors import StateError, listed
from groupwise.optim.spellings import other_spellings

Found: TypeAlias = Literal["found", "renamed", "replaced", "copied"]
"""How a parameter was found: as it was, under another name, as another tensor, or untied from another one."""


@dataclass(frozen=True)
class SavedParameter:
    """What a checkpoint holds for one parameter: its state, and the values of the group that it was in.

    `state` is empty where the checkpoint says that there was none, None where it says nothing. A regroup knows besides
    how it `found` the parameter, whether it was `reshaped`, and, if it has another number of rows, which of the old
    `rows` each new one was (-1 for none); None where that is not known.
    """

    state: Mapping[str, Any] | None
    values: Mapping[str, Any]
    found: Found = "found"
    reshaped: bool = False
    rows: torch.Tensor | None = None


@dataclass(frozen=True)
class Saved:
    """A checkpoint by parameter name, and the entries of `state` that belong to no parameter.

    `gone` are parameters that are certain to be no more; `named` is whether the names are the checkpoint's own.
    """

    parameters: Mapping[str, SavedParameter]
    extra_state: Mapping[Any, Any] = field(default_factory=dict)
    gone: Mapping[str, SavedParameter] = field(default_factory=dict)
    named: bool = True


def read(state_dict: Mapping[str, Any], names: Sequence[str], aliases: Mapping[str, str]) -> Saved:
    """A checkpoint in normal form.

    Args:
        state_dict: torch's layout: `state` and `param_groups`; parameters by position, or by name (DCP).
        names: the parameters as the model orders them, for a checkpoint that has no names.
        aliases: every name that a parameter goes by, to the first.

    Raises:
        StateError: not an optimizer's checkpoint, one without names that cannot be matched by position, or an ambiguous
            one: an entry for no parameter, or two for the same.
    """
    groups, state = _parts(state_dict)
    parameters: dict[str, SavedParameter] = {}
    origin: dict[str, tuple[str, object]] = {}
    named = _names(groups, names, aliases)
    respelled = _respelled(list(chain.from_iterable(named)), aliases)
    for group, own in zip(groups, named, strict=True):
        values = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for identity, name in zip(group["params"], own, strict=True):
            known = respelled.get(name, _known(name, aliases))
            if origin.setdefault(known, (name, identity)) != (name, identity):
                raise StateError(_twice(origin[known][0], name, known))
            if known not in parameters:  # a group that is repeated as it is says nothing new
                found: Found = "renamed" if name in respelled else "found"
                parameters[known] = SavedParameter(_held(name, state.pop(identity, None)), values, found)
    astray = [key for key in state if isinstance(key, int)]
    if astray:
        raise StateError(f"ambiguous: the state under {listed(map(str, astray), 3)} is of no parameter in any group")
    return Saved(parameters, state, named=_has_names(groups))


def _known(name: str, aliases: Mapping[str, str]) -> str:
    """A saved name as this model says it: without wrappers, and by the first of a tied parameter's names."""
    return aliases[name] if name in aliases else aliases.get(without_wrappers(name), name)


def _respelled(names: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """The saved names that are known here under a parametrization only, or without it, and that no other name takes."""
    known = {_known(name, aliases) for name in names}
    found: dict[str, str] = {}
    for name in (name for name in names if _known(name, aliases) not in aliases):
        others = (aliases[other] for other in other_spellings(without_wrappers(name)) if other in aliases)
        here = next((other for other in others if other not in known), None)
        if here is not None:
            found[name] = here
    return found


def _twice(first: str, second: str, known: str) -> str:
    if first == second:
        return f"ambiguous: the checkpoint names {first!r} twice"
    return f"ambiguous: {first!r} and {second!r} of the checkpoint are both {known!r} here; remove one of them"


def _held(name: str, state: Any) -> Mapping[str, Any] | None:
    """One parameter's saved state; empty if all of it is {}, as DCP's flattened form reads what is not there."""
    if state is None:
        return None
    if not isinstance(state, Mapping):
        raise StateError(f"the state of {name!r} in the checkpoint is {type(state).__name__}, not a mapping")
    first: object = next(iter(state.values()), {})
    if isinstance(first, torch.Tensor):
        return state
    return {} if all(isinstance(value, Mapping) and not value for value in state.values()) else state


def _parts(state_dict: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], dict[Any, Any]]:
    """The groups and the state, once they are certain to be such."""
    shaped = isinstance(state_dict, Mapping) and "state" in state_dict and "param_groups" in state_dict
    groups, state = (state_dict["param_groups"], state_dict["state"]) if shaped else (None, None)
    if not isinstance(groups, list) or not isinstance(state, Mapping) or not all(map(_is_group, groups)):
        given = listed(map(str, state_dict)) if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise StateError(f"not an optimizer's state_dict: it needs 'state' and 'param_groups', this has {given}")
    for group in groups:
        count, named = len(group["params"]), len(group.get("param_names", group["params"]))
        if named != count and not _is_named(group):
            raise StateError(f"a group of the checkpoint has {count} parameters and {named} names")
    return groups, dict(state)


def _is_group(group: object) -> bool:
    lists = (group.get("params"), group.get("param_names", [])) if isinstance(group, Mapping) else ("",)
    return all(isinstance(entries, list) and all(isinstance(e, int | str) for e in entries) for entries in lists)


def _is_named(group: Mapping[str, Any]) -> bool:
    """Whether the ids themselves are names, as DCP writes them."""
    return bool(group["params"]) and all(isinstance(identity, str) for identity in group["params"])


def _has_names(groups: Sequence[Mapping[str, Any]]) -> bool:
    return all("param_names" in group or _is_named(group) or not group["params"] for group in groups)


def _names(
    groups: Sequence[Mapping[str, Any]], names: Sequence[str], aliases: Mapping[str, str]
) -> list[Sequence[str]]:
    """The parameters' names, group by group: the ids themselves, or stored, or by position where that is sure.

    Where DCP has laid a checkpoint out for other groups, stored names are those of a group that it came from; so ids
    that are known here go first.
    """
    identities = list(chain.from_iterable(group["params"] for group in groups))
    named = all(isinstance(identity, str) for identity in identities)
    if named and any(_known(identity, aliases) in aliases for identity in identities):
        return [group["params"] for group in groups]
    if all("param_names" in group for group in groups):
        return [list(map(str, group["param_names"])) for group in groups]
    if named:
        return [group["params"] for group in groups]
    if len(groups) != 1 or len(identities) != len(names):
        raise StateError(
            f"the checkpoint has no parameter names, {len(groups)} groups and {len(identities)} parameters; by "
            f"position only one group with this model's {len(names)} parameters can be matched. Save it again from an "
            "optimizer built with named_parameters()"
        )
    return [names]
