"""The hyperparameters of groups, as numbers by name: tuples flattened (`beta1`, `beta2`).

They are read at every step and change seldom, so what was found is kept for as long as every value of a group is the
very same object. A list or a tensor can change and stay the same object: a group with one is read anew each time.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, final

import torch

from groupwise.observe.grouping import Live, Seen

NOT_VALUES: Final = frozenset({"params", "param_names", "name", "algorithm", "network", "frozen", "declared"})
"""The keys of a live group that are no hyperparameters."""

_NUMBERS: Final = (float, int)


@final
class Values:
    """Reads the hyperparameters that a step is about to use, or has used."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[list[Any], dict[str, Any]]] = {}

    def read(self, seen: Seen) -> dict[str, dict[str, Any]]:
        """By group: floats, and copies of tensors, because a schedule writes into a number that is a tensor."""
        return {name: self._of(name, members) for name, members in zip(seen.names, seen.members, strict=True)}

    def _of(self, name: str, members: Sequence[Live]) -> dict[str, Any]:
        now = list(chain.from_iterable(chain.from_iterable(group.items() for group in members)))
        before, found = self._known.get(name, ((), {}))
        if len(now) == len(before) and all(map(operator.is_, now, before)):
            return found
        read = values_of(members)
        found = {key: n.clone() if isinstance(n, torch.Tensor) else float(n) for key, n in read.items()}
        if not any(_can_change(key, value) for group in members for key, value in group.items()):
            self._known[name] = now, found
        return found


def values_of(members: Sequence[Live]) -> dict[str, Any]:
    """The hyperparameters of groups; where they differ, the largest."""
    found: dict[str, Any] = dict(_flat(members[0])) if members else {}
    for group in members[1:]:
        for name, value in _flat(group):
            known = found.get(name)
            found[name] = value if known is None or isinstance(value, torch.Tensor) else max(known, value)
    return found


def _flat(group: Live) -> Iterator[tuple[str, Any]]:
    """The numbers among the hyperparameters of a group; a bool is none."""
    for name, value in group.items():
        if type(value) in _NUMBERS:
            yield name, value
        elif isinstance(value, tuple | list) and name not in NOT_VALUES:
            stem = name[:-1] if name.endswith("s") else name
            yield from ((f"{stem}{i}", element) for i, element in enumerate(value, start=1) if _is_number(element))
        elif isinstance(value, torch.Tensor) and value.numel() == 1:
            yield name, value


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _can_change(name: str, value: Any) -> bool:
    """Whether a hyperparameter can change and stay the same object."""
    parts = value if isinstance(value, tuple) else (value,)
    return name not in NOT_VALUES and any(isinstance(part, list | torch.Tensor) for part in parts)
