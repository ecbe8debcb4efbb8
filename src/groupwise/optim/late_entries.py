"""Entries of state for a switch that is turned on late: amsgrad's maximum, RMSprop's momentum or mean gradient.

A class makes a parameter's entries at its first step, under the values that stand then, and later reads those that the
values of the day ask for. Where an edited plan, a schedule that leaves 0 or an edit by hand asks for one more, torch's
classes raise a `KeyError` in the middle of a step. Here such an entry begins as the class would begin it, at zero. An
entry that the class keeps however its switches stand is not added: where it is missing, the state is damaged.

A group is looked at where its switches, the values that are true, false, 0 or text, are not those of its last step.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch

from groupwise import _torch
from groupwise.optim.fresh_state import FreshState

Switches: TypeAlias = tuple[tuple[str, object], ...]

_NUMBERS: Final = frozenset({bool, int, float})
_TEXT: Final = frozenset({str, type(None)})
_NO_SWITCHES: Final = frozenset({"params", "lr", "initial_lr", "name", "network", "frozen"})


@dataclass(frozen=True)
class _Seen:
    """What a group had at its last step: all that may switch, as it stood there, and what it switched."""

    size: int
    values: Mapping[str, object]
    switches: Switches

    def is_of(self, group: Mapping[str, Any]) -> bool:
        """Whether every value is the very object that it was."""
        return len(group) == self.size and all(map(operator.is_, map(group.get, self.values), self.values.values()))


class LateEntries:
    """Adds entries of state that the classes of a plan would not find."""

    def __init__(self, fresh: FreshState) -> None:
        self._fresh = fresh
        self._seen: dict[object, _Seen] = {}
        self._begun: dict[object, frozenset[str]] = {}
        self._switched: dict[object, frozenset[str]] = {}

    @_torch.untraced
    def add(self, groups: Sequence[Mapping[str, Any]], state: MutableMapping[torch.Tensor, Any]) -> None:
        """Add to `state` what the classes of these live groups look for and would have begun at zero."""
        for group in groups:
            name = group.get("name")
            before = self._seen.get(name)
            if before is None or not before.is_of(group):
                now = _seen(group)
                if before is None or before.switches != now.switches:
                    self._complete(group, now.switches, state)
                self._seen[name] = now

    def forget(self) -> None:
        """Look at every group anew: its state is another."""
        self._seen.clear()

    def _complete(self, group: Mapping[str, Any], switches: Switches, state: MutableMapping[torch.Tensor, Any]) -> None:
        for p in group["params"] if "algorithm" in group else ():
            own = state.get(p)
            if isinstance(own, dict) and own:
                like = next((held for held in own.values() if _is_like(held, p)), p)
                for name in self._missing(own, group, switches, p.ndim):
                    own[name] = torch.zeros_like(like)

    def _missing(
        self, own: Mapping[str, Any], group: Mapping[str, Any], switches: Switches, rank: int
    ) -> frozenset[str]:
        """The entries that a switch asks for, begin at zero and are not in `own`; tried once for some switches."""
        key = (group["algorithm"], switches, rank)
        if key not in self._begun:
            self._begun[key] = self._fresh.zero_entries(group, rank) or frozenset()
        missing = self._begun[key] - own.keys()
        if missing and key not in self._switched:
            self._switched[key] = self._fresh.switched_entries(group, rank)
        return missing & self._switched[key] if missing else missing


def _seen(group: Mapping[str, Any]) -> _Seen:
    values = {name: value for name, value in group.items() if name not in _NO_SWITCHES}
    switches = tuple(
        (name, value != 0 if type(value) in _NUMBERS else value)
        for name, value in values.items()
        if type(value) in _NUMBERS or type(value) in _TEXT
    )
    return _Seen(len(group), values, switches)


def _is_like(held: object, p: torch.Tensor) -> bool:
    return (
        isinstance(held, torch.Tensor) and held.shape == p.shape and held.is_floating_point() == p.is_floating_point()
    )
