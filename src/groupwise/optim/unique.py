"""One tensor in one place: what the groups must be to be stepped, and to be saved.

`param_groups` belongs to everybody, and anybody may put a tensor into a second group, where it would be stepped twice,
or give two the same name, so that no load could tell their states apart. Either is refused where it would do harm,
before anything has moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import is_
from typing import Any, TypeAlias

import torch

from groupwise.errors import OptimizerError, StateError, listed
from groupwise.optim.live import names_of

Groups: TypeAlias = Sequence[Mapping[str, Any]]
_KNOWN = 64  # trainers that step group after group show a few lists of groups in turn


class Distinct:
    """Checks at a step that no tensor stands twice, and whether other tensors are stepped than before."""

    def __init__(self) -> None:
        self._known: set[tuple[int, ...]] = set()
        self._last: list[int] = []
        self._resolved: Sequence[object] | None = None

    def check(self, groups: Groups, resolved: Sequence[object]) -> bool:
        """Raise `OptimizerError` if a tensor stands in two places. Return whether tensors are others than before.

        `resolved` are the tensors of the groups as the plan was resolved, which mostly they still are.
        """
        if torch.compiler.is_compiling():
            return False
        held = [*chain.from_iterable([group["params"] for group in groups])]
        if len(held) == len(resolved) and all(map(is_, held, resolved)):
            is_new, self._resolved = self._resolved is not resolved, resolved
            return is_new
        ids, self._resolved = [*map(id, held)], None
        if ids == self._last:
            return False
        self._last = []
        key = (*ids,)
        is_new = key not in self._known
        if is_new and len({*ids}) < len(ids):
            raise OptimizerError(_twice(groups))
        if is_new and len(self._known) >= _KNOWN:
            self._known.clear()
        self._known.add(key)
        self._last = ids
        return is_new

    def forget(self) -> None:
        """Check at the next step, whatever it steps."""
        self._known.clear()
        self._last, self._resolved = [], None


class Savable:
    """Checks that a load could take a checkpoint, and remembers names that it has found to differ."""

    def __init__(self) -> None:
        self._distinct: list[str] = []

    def check(self, groups: Groups, state: Mapping[Any, Any]) -> None:
        """Raise `StateError` if it would not be certain whose state is whose."""
        params = [*chain.from_iterable([group["params"] for group in groups])]
        if len(state) != len(params) or not all(map(is_, params, state)):
            _check_held(params, state)
        names = [*chain.from_iterable(map(names_of, groups))]
        if names == self._distinct:
            return
        if len({*names}) < len(names):
            _check_named(groups)
        else:
            self._distinct = names


def _check_held(params: Iterable[torch.Tensor], state: Mapping[Any, Any]) -> None:
    held = {*map(id, params)}
    others = [] if held.issuperset(map(id, state)) else [key for key in state if id(key) not in held]
    strangers = [tuple(key.shape) for key in others if isinstance(key, torch.Tensor)]
    if strangers:
        raise StateError(
            f"there is state of {len(strangers)} tensors (shapes {listed(map(str, strangers), 3)}) that stand in no "
            "group: they were taken out by hand. Drop it (optimizer.state.pop(p)), or call regroup(model=model)"
        )
    numbers = [repr(key) for key in others if isinstance(key, int)]
    if numbers:
        raise StateError(f"optimizer.state has the keys {listed(numbers, 3)}, which a checkpoint uses for parameters")


def _check_named(groups: Groups) -> None:
    named: dict[str, tuple[int, object]] = {}
    for group in groups:
        for name, p in zip(names_of(group), group["params"], strict=True):
            first, where = named.setdefault(name, (id(p), group.get("name")))
            if first != id(p):
                raise StateError(
                    f"{name!r} is the name of two tensors, in group {where!r} and in group {group.get('name')!r}, so "
                    "no load could tell their states apart. Give one of them another name in its group's param_names, "
                    "or, if the model has changed, call optimizer.regroup(model=model)"
                )


def _twice(groups: Groups) -> str:
    places: dict[int, list[str]] = {}
    for group in groups:
        for name, p in zip(names_of(group), group["params"], strict=True):
            places.setdefault(id(p), []).append(f"{name!r} of group {group.get('name')!r}")
    twice = next(holders for holders in places.values() if len(holders) > 1)
    return f"{listed(twice, 3)} are one tensor, so a step would move it {len(twice)} times: take it out of all but one"
