"""The hyperparameters of groups, as numbers by name: tuples flattened (`beta1`, `beta2`).

They are read at every step and change seldom, so what was found is kept for as long as the groups are the same and
every value of a group is the very same object, unless that can change and stay the same object: a tensor, an array, a
list.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, final

from groupwise.observe.grouping import NOTHING, GroupSnapshot, Live
from groupwise.observe.number import Number, largest, number_of

NOT_VALUES: Final = frozenset({"params", "param_names", "name", "algorithm", "network", "frozen", "declared"})
"""The keys of a live group that are no hyperparameters."""


@final
class Values:
    """Reads the hyperparameters that a step is about to use, or has used."""

    def __init__(self) -> None:
        self._seen = NOTHING
        self._known: dict[str, tuple[list[Any], dict[str, Number]]] = {}

    def read(self, snapshot: GroupSnapshot) -> dict[str, dict[str, Number]]:
        """By group: floats, and copies of tensors, because a schedule writes into a number that is a tensor."""
        if snapshot is not self._seen:
            self._seen, self._known = snapshot, {}  # nothing of groups that are gone is kept
        return {
            name: self._of(name, [member.group for member in members])
            for name, members in zip(snapshot.names, snapshot.members, strict=True)
        }

    def _of(self, name: str, members: Sequence[Live]) -> dict[str, Number]:
        now = [part for group in members for part in (*group, *group.values())]
        before, found = self._known.get(name, ((), {}))
        if len(now) == len(before) and all(map(operator.is_, now, before)):
            return found
        found = values_of(members)
        if all(_stays(value) for group in members for key, value in group.items() if key not in NOT_VALUES):
            self._known[name] = now, found
        return found


def values_of(members: Sequence[Live]) -> dict[str, Number]:
    """The hyperparameters of groups; where they differ, the largest."""
    found: dict[str, Number] = {}
    for name, value in chain.from_iterable(map(_numbers, members)):
        found[name] = largest(found[name], value) if name in found else value
    return found


def _numbers(group: Live) -> Iterator[tuple[str, Number]]:
    for name, value in _settings(group):
        parts: Iterable[tuple[str, Any]] = [(name, value)]
        if isinstance(value, tuple | list):
            parts = ((f"{name.removesuffix('s')}{i}", element) for i, element in enumerate(value, start=1))
        yield from ((key, number) for key, part in parts if (number := number_of(part)) is not None)


def _settings(group: Live) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in group.items() if name not in NOT_VALUES]


def _stays(value: Any) -> bool:
    """Whether a value is the same for as long as it is the same object."""
    if isinstance(value, tuple):
        return all(map(_stays, value))
    return value is None or isinstance(value, str | numbers.Real)
