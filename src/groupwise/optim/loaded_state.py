"""State as torch loads it, in time that grows with the number of tensors.

Torch casts each saved tensor by the flags of its group, which it looks for among all groups and all of their positions,
so that a load takes time with the square of their number. Here the group of a tensor is known: torch loads the groups,
and what state belongs to no parameter; the state of each parameter is cast by torch's own function, in its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from groupwise._torch import cast_as_loaded


def without_parameters(layout: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in torch's layout without the state of parameters, and without their names, which the live groups
    have; their positions as ranges, which torch copies at once."""
    groups, count = [], 0
    for group in layout["param_groups"]:
        positions = range(count, count + len(group["params"]))
        groups.append({**{key: value for key, value in group.items() if key != "param_names"}, "params": positions})
        count = positions.stop
    state = {key: value for key, value in layout["state"].items() if not _is_position(key, count)}
    return {**layout, "state": state, "param_groups": groups}


def with_state_of(
    groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any], layout: Mapping[str, Any]
) -> dict[Any, Any]:
    """`state`, and that of the parameters of `groups` in a checkpoint, cast as torch casts it."""
    members = [(flags, p) for group in groups for flags in [{**group, "params": (0,)}] for p in group["params"]]
    made = dict(state)
    for position, entries in layout["state"].items():
        if _is_position(position, len(members)):
            flags, p = members[position]
            made[p] = _cast(p, entries, flags)
    return made


def _is_position(key: object, count: int) -> bool:
    return isinstance(key, int) and key < count


def _cast(p: torch.Tensor, value: Any, flags: Mapping[str, Any], key: Any = None) -> Any:
    """As torch walks over state: tensors in mappings and in other collections."""
    if isinstance(value, torch.Tensor):
        return cast_as_loaded(p, value, key, flags)
    if isinstance(value, dict):
        return {name: _cast(p, held, flags, name) for name, held in value.items()}
    if isinstance(value, Iterable):
        return type(value)(_cast(p, held, flags) for held in value)  # type: ignore[call-arg]
    return value
