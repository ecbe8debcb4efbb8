"""What a scheduler writes, prepared once.

Groups share schedules: five hundred groups under layer decay are one cosine and five hundred factors. So each distinct
schedule is evaluated once per step of the scheduler, and a group's value is `values[i] * factor`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, TypeAlias

import torch

from groupwise._spelling import shown
from groupwise.errors import StateError, within
from groupwise.plan import Group, Resolution, ScalarSetting, Setting, TupleSetting
from groupwise.plan.rule import property_of
from groupwise.schedules import PlateauState, Schedule, plateaus, reduced


@dataclass(frozen=True)
class Term:
    """One scheduled number: `base` (or the first schedule) times the schedules at `indices`, times `factor`."""

    base: Any
    indices: tuple[int, ...]
    factor: float | None

    def value(self, values: Sequence[float]) -> Any:
        """The number, given every schedule's value now; the products associate as in `Setting.at`."""
        value, rest = (values[self.indices[0]], self.indices[1:]) if self.base is None else (self.base, self.indices)
        for i in rest:
            value = value * values[i]
        return value if self.factor is None else value * self.factor


@dataclass(frozen=True)
class Terms:
    """A tuple of numbers, any of them scheduled."""

    elements: tuple[Term, ...]

    def value(self, values: Sequence[float]) -> Any:
        """The tuple, given every schedule's value now."""
        return tuple(term.value(values) for term in self.elements)


Line: TypeAlias = tuple[str, int, float | None]
"""(key, schedule, factor) for the common case of one schedule; else (key, composed value, None)."""

Entry: TypeAlias = tuple[dict[str, Any], str, Any]
"""(live group, hyperparameter, value)."""


Overwritten: TypeAlias = Mapping[tuple[str, str], Any]
"""By group and hyperparameter, what stood there in place of the scheduled value."""


def write(entries: Iterable[Entry]) -> None:
    """Write values into live groups: a tensor is filled and stays the one that it is, anything else is replaced where
    it is another value.

    One tensor that several groups share is one value for all of them: each group after the first gets its own.
    """
    filled: set[int] = set()
    for group, key, value in entries:
        held = group.get(key)
        if type(held) is float or type(held) is tuple:
            if held != value:
                group[key] = value
        elif isinstance(held, torch.Tensor) and not isinstance(value, tuple):
            if id(held) in filled:
                held = group[key] = held.detach().clone()
            filled.add(id(held))
            held.detach().fill_(value)
        else:
            group[key] = value


def overwritten(entries: Iterable[Entry]) -> list[list[Any]]:
    """What stands in the groups in place of the values of `entries`, as plain data: group, hyperparameter, value."""
    held = [(group.get("name", ""), key, group.get(key), value) for group, key, value in entries]
    stands = [(name, key, as_plain(now)) for name, key, now, value in held if as_plain(now) != _as_held(now, value)]
    return [[*entry] for entry in stands if _is_value(entry[2])]


def saved_overwritten(saved: Any) -> Overwritten:
    """What `overwritten` gave, from a checkpoint. Raises `StateError` for anything else."""
    try:
        stood = {(str(group), str(key)): tuple(v) if isinstance(v, list) else v for group, key, v in saved}
    except (TypeError, ValueError) as error:
        raise StateError(f"'overwritten' is a list of group, hyperparameter and value, not {shown(saved)}") from error
    for (group, key), value in stood.items():
        if not _is_value(value):
            raise StateError(f"'overwritten' has no number for {key} of group {group!r}: {shown(value)}")
    return stood


def restored(entries: Iterable[Entry], stood: Overwritten) -> list[Entry]:
    """Those of `entries` that were overwritten, with what stood there."""
    named = ((group, key, (str(group.get("name", "")), key)) for group, key, _ in entries)
    return [(group, key, stood[place]) for group, key, place in named if place in stood]


def _is_value(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_value, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_held(held: object, value: Any) -> Any:
    """A number as it would be after it was written into `held`: a tensor rounds it."""
    number = isinstance(held, torch.Tensor) and isinstance(value, int | float)
    return held.new_tensor(value).item() if number and isinstance(held, torch.Tensor) else value


def as_plain(held: object) -> object:
    """A number in a tensor as a Python number; anything else as it is."""
    return held.item() if isinstance(held, torch.Tensor) and held.numel() == 1 else held


class ScheduledValues:
    """Every scheduled hyperparameter and named value of a resolution, and the lengths that it is run with."""

    def __init__(self, resolution: Resolution, total_steps: int | None, steps_per_epoch: int | None) -> None:
        self.resolution = resolution
        self.lengths = (total_steps, steps_per_epoch)
        self._indices: dict[Schedule, int] = {}
        self._terms: dict[Term | Terms, int] = {}
        self._check_lengths()
        self.lines = {g.name: self._lines(g) for g in resolution.groups if g.algorithm is not None}
        self.rates = {name for name, lines in self.lines.items() if any(key == "lr" for key, *_ in lines)}
        self._named = {name: self._index(schedule) for name, schedule in resolution.values.items()}
        self.moving = {g.name: g for g in resolution.groups if g.timeline is not None and g.timeline.moves}
        self._schedules = list(self._indices)
        self.states = {p: p.initial for schedule in self._schedules for p in plateaus(schedule)}
        self.counts_steps = resolution.scheduled and steps_per_epoch != 1
        """Whether its steps are meant as updates: it has schedules, and an epoch is not said to be one step long."""

    @property
    def needs_total_steps(self) -> bool:
        """Whether any schedule's course depends on the length of the run."""
        return any("total_steps" in schedule.needs for schedule in self._indices)

    def restated(self, states: Mapping[Any, PlateauState]) -> ScheduledValues:
        """The same with these states of its plateaus; states of others are passed over."""
        scheduled_values = copy.copy(self)
        scheduled_values.states = self.states | {p: state for p, state in states.items() if p in self.states}
        scheduled_values._schedules = [reduced(schedule, scheduled_values.states) for schedule in self._indices]
        return scheduled_values

    def evaluate(self, step: int) -> list[float]:
        """Every distinct schedule's value at update `step`."""
        return [schedule.at(step, *self.lengths) for schedule in self._schedules]

    def named(self, values: Sequence[float]) -> dict[str, float]:
        """The plan's named values."""
        return {name: values[i] for name, i in self._named.items()}

    def entries(self, groups: Sequence[dict[str, Any]], values: Sequence[float]) -> list[Entry]:
        """Every scheduled hyperparameter of the live groups and what it is to be; `write` writes it."""
        composed = [term.value(values) for term in self._terms]
        return [
            (group, key, composed[index] if factor is None else values[index] * factor)
            for group in groups
            for key, index, factor in self.lines.get(group.get("name", ""), ())
        ]

    def _lines(self, group: Group) -> list[Line]:
        lines: list[Line] = []
        for key, setting in group.settings.items():
            if not setting.schedules:
                continue
            simple = (
                isinstance(setting, ScalarSetting)
                and isinstance(setting.base, Schedule)
                and len(setting.schedules) == 1
            )
            if simple and isinstance(setting, ScalarSetting):
                lines.append((key, self._index(setting.schedules[0]), setting.constant_factor))
            else:
                lines.append((key, self._terms.setdefault(self._compose(setting), len(self._terms)), None))
        return lines

    def _compose(self, setting: Setting) -> Term | Terms:
        if isinstance(setting, TupleSetting):
            return Terms(tuple(self._term(element) for element in setting.elements))
        return self._term(setting)

    def _term(self, setting: Setting) -> Term:
        single = setting if isinstance(setting, ScalarSetting) else ScalarSetting(None)
        base = None if isinstance(single.base, Schedule) else single.base
        indices = tuple(self._index(schedule) for schedule in single.schedules)
        return Term(base, indices, single.constant_factor if single.factors else None)

    def _index(self, schedule: Schedule) -> int:
        return self._indices.setdefault(schedule, len(self._indices))

    def _check_lengths(self) -> None:
        """Evaluate everything once, so that a missing length is reported with the rule that needs it."""
        for group in self.resolution.groups:
            for key, setting in group.settings.items():
                with within(f"{self.resolution.declaring_rules(group, property_of(key))}: {key}"):
                    setting.at(0, *self.lengths)
            if group.timeline is not None:
                with within(f"{self.resolution.declaring_rules(group, 'trainable')}: trainable"):
                    group.timeline.trainable_at(0, *self.lengths)
        for name, schedule in self.resolution.values.items():
            with within(f"values.{name}"):
                schedule.at(0, *self.lengths)


@dataclass(frozen=True)
class Position:
    """Where a plan stands: the `update` that is made next, and by group the learning `rates` written for it."""

    scheduled_values: ScheduledValues
    update: int
    rates: Mapping[str, Any]

    def overwritten(self, groups: Sequence[Mapping[str, Any]]) -> list[str]:
        """Those of `groups` whose scheduled lr is no more what was written; tensors stay on the device, unread."""
        held = [group.get("lr") for group in groups]
        if len(held) == len(self.rates) and all(map(is_, held, self.rates.values())):
            return []
        found = []
        for group in groups:
            name, rate = group.get("name", ""), group.get("lr")
            written = self.rates.get(name, rate)
            if rate is written:
                continue
            numbers = not isinstance(rate, torch.Tensor) and not isinstance(written, torch.Tensor)
            if numbers and rate != written and name in self.scheduled_values.rates:
                found.append(name)
        return found
