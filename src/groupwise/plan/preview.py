"""What a run will look like, before it: every schedule of a resolution, sampled over time.

Schedules are pure functions of the step, so a preview costs no run. A *panel* is one property that
something schedules, over all the groups that have it (one that stays put is part of the picture); a *row* is one course
of values, with the names of all the groups that share it. The learning rate leads, whether or not it is what moves.
Values that no parameter owns make panels of their own.

A preview needs the lengths that the plan's schedules count in; `missing_lengths` names the rules whose schedules wait
for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from groupwise.errors import ScheduleError, listed
from groupwise.plan.algorithm import is_number
from groupwise.plan.declarations import Exact, Factor, Scale
from groupwise.plan.freezing import Timeline
from groupwise.plan.group import Group
from groupwise.plan.resolution import Resolution
from groupwise.plan.rule import property_of, title
from groupwise.plan.setting import ScalarSetting, Setting, TupleSetting
from groupwise.schedules import Schedule, plateaus

Trains = Callable[[int], bool]


@dataclass(frozen=True)
class MissingLength:
    """A schedule or a freezing that waits for a length: the rules behind it, its text, and what it `needs`."""

    who: str
    property: str
    text: str
    needs: frozenset[str]


@dataclass(frozen=True)
class Row:
    """One course of values, and the groups that take it.

    `values` and `trains` stand beside the preview's `steps`: the value there, and whether the groups are trained.
    `peak` is the largest value of the whole run, not of the samples.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    trains: tuple[bool, ...]
    start: float
    peak: float
    end: float


@dataclass(frozen=True)
class Panel:
    """One property over time. `named` marks one of the plan's `values`; `reactive` one that a metric will change."""

    title: str
    rows: tuple[Row, ...]
    named: bool
    reactive: bool


@dataclass(frozen=True)
class Preview:
    """The sampled steps, from 0 to the end of the run, and the panels, the learning rate's first."""

    steps: tuple[int, ...]
    total_steps: int
    steps_per_epoch: int | None
    panels: tuple[Panel, ...]


def preview(
    resolution: Resolution, total_steps: int, steps_per_epoch: int | None = None, samples: int = 241
) -> Preview:
    """Sample everything that `resolution` schedules at up to `samples` steps, evenly from 0 to `total_steps`.

    Raises `LengthError` where a schedule counts in epochs and `steps_per_epoch` is None, `ScheduleError` for a run of
    no length.
    """
    if total_steps < 1 or samples < 2:
        raise ScheduleError(f"a picture has at least one step and two samples, not {total_steps} and {samples}")
    run = _Run(total_steps, steps_per_epoch, _spread(0, total_steps, samples))
    panels = [_panel(resolution, slot, run) for slot in _slots(resolution)]
    named = [_named(name, schedule, run) for name, schedule in resolution.values.items()]
    return Preview(run.steps, total_steps, steps_per_epoch, (*panels, *named))


def missing_lengths(
    resolution: Resolution, total_steps: int | None, steps_per_epoch: int | None
) -> tuple[MissingLength, ...]:
    """Whatever cannot be evaluated with these lengths, each schedule once per rules that say it."""
    given = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    unknown = {name for name, size in given.items() if size is None}
    missing = (MissingLength(who, what, text, needs & unknown) for who, what, text, needs in _timed(resolution))
    return tuple(dict.fromkeys(length for length in missing if length.needs))


def _timed(resolution: Resolution) -> Iterator[tuple[str, str, str, frozenset[str]]]:
    """Whatever depends on time: the rules behind it, the property, its text, and the lengths that it counts in."""
    for group in resolution.groups:
        for name, setting in group.settings.items():
            for schedule in setting.schedules:
                yield _declaring(resolution, group, name, schedule), name, str(schedule), schedule.needs
        if group.timeline is not None:
            needs = _lengths_of(group.timeline)
            yield resolution.declaring_rules(group, "trainable"), "trainable", str(group.timeline), needs
    for name, schedule in resolution.values.items():
        yield "values", name, str(schedule), schedule.needs


def _declaring(resolution: Resolution, group: Group, name: str, schedule: Schedule) -> str:
    """The rules that declare `schedule` for a group."""
    rules = resolution.rules
    said = [i for i in group.rules if any(holds(value, schedule) for value in rules[i].values.values())]
    return listed(title(rules, i) for i in said) or resolution.declaring_rules(group, property_of(name))


def holds(value: object, schedule: Schedule) -> bool:
    """Whether a declared value is `schedule`, or has it as an element or a factor."""
    match value:
        case Exact(inner):
            return holds(inner, schedule)
        case tuple():
            return any(holds(element, schedule) for element in value)
        case Factor():
            return any(isinstance(part, Scale) and part.by == schedule for part in value.parts)
        case _:
            return value == schedule


def _lengths_of(timeline: Timeline) -> frozenset[str]:
    bounds = (timeline.start, timeline.end)
    return frozenset().union(*(bound.needs for bound in bounds if bound is not None))


class _Run:
    """The lengths of a run and the steps to look at. What groups share up to constant factors is evaluated once."""

    def __init__(self, total_steps: int, steps_per_epoch: int | None, steps: tuple[int, ...]) -> None:
        self.lengths = (total_steps, steps_per_epoch)
        self.steps = steps
        self._courses: dict[ScalarSetting, tuple[float, ...]] = {}

    def row(self, name: str, setting: ScalarSetting, trains: Trains) -> Row:
        """The course of one setting; equal to `setting.at` at every sample."""
        factor = setting.constant_factor if setting.factors else 1
        *values, peak = (value * factor for value in self._course(setting.unscaled))
        last = self.lengths[0] - 1  # the last update; the last step is the state after it
        trained = tuple(trains(min(step, last)) for step in self.steps)
        return Row((name,), tuple(values), trained, values[0], peak, values[-1])

    def _course(self, setting: ScalarSetting) -> tuple[float, ...]:
        """The value at every sample, and the largest; constant factors are never negative, so they do not move it."""
        if setting not in self._courses:
            values = [self._at(setting, step) for step in self.steps]
            if setting.schedules:
                highest = _highest(lambda step: self._at(setting, step), self.lengths[0])
                self._courses[setting] = (*values, self._at(setting, highest))
            else:
                self._courses[setting] = (*values, values[0])
        return self._courses[setting]

    def _at(self, setting: ScalarSetting, step: int) -> float:
        value = setting.at(step, *self.lengths)
        if isinstance(value, int | float):
            return value
        raise ScheduleError(f"{setting} is not a number")


def _highest(value: Callable[[int], float], total_steps: int, samples: int = 241) -> int:
    """The step where `value` is largest, found by looking ever closer around the largest sample."""
    low, high = 0, total_steps
    while True:
        steps = _spread(low, high, samples)
        best = max(range(len(steps)), key=lambda i: value(steps[i]))
        if high - low < samples:
            return steps[best]
        low, high = steps[max(best - 1, 0)], steps[min(best + 1, len(steps) - 1)]


def _spread(low: int, high: int, samples: int) -> tuple[int, ...]:
    """Up to `samples` different whole numbers, evenly from `low` to `high`, both included."""
    return tuple(sorted({low + (high - low) * i // (samples - 1) for i in range(samples)}))


def _slots(resolution: Resolution) -> list[str]:
    """The properties to show: learning rates, then whatever else some group schedules."""
    groups = [group for group in resolution.groups if group.algorithm is not None]
    rates = [resolution.algorithms[str(group.algorithm)].learning_rate for group in groups]
    scheduled = [slot for group in groups for name in group.settings for slot in _moving(name, group.settings[name])]
    return list(dict.fromkeys([*(rate for rate in rates if rate is not None), *scheduled]))


def _moving(name: str, setting: Setting) -> list[str]:
    if isinstance(setting, TupleSetting):
        return [f"{name}[{i}]" for i, element in enumerate(setting.elements) if element.schedules]
    return [name] if setting.schedules else []


def _panel(resolution: Resolution, slot: str, run: _Run) -> Panel:
    found = [(group, _single(resolution, group, slot)) for group in resolution.groups]
    had = [(group, setting) for group, setting in found if setting is not None]
    rows = [run.row(group.name, setting, _trains(group, run)) for group, setting in had]
    schedules = [schedule for _, setting in had for schedule in setting.schedules]
    return Panel(slot, _folded(rows), named=False, reactive=any(map(plateaus, schedules)))


def _named(name: str, schedule: Schedule, run: _Run) -> Panel:
    row = run.row(name, ScalarSetting(schedule), lambda step: True)
    return Panel(name, (row,), named=True, reactive=bool(plateaus(schedule)))


def _trains(group: Group, run: _Run) -> Trains:
    return lambda step: group.trainable_at(step, *run.lengths)


def _single(resolution: Resolution, group: Group, slot: str) -> ScalarSetting | None:
    """What `slot` is in a group, the class default where nobody declares it; None if it has no such number."""
    if group.algorithm is None:
        return None
    algorithm, name = resolution.algorithms[group.algorithm], slot.partition("[")[0]
    if name not in algorithm.defaults or slot not in algorithm.slots(name):
        return None
    setting = group.settings.get(name)
    if isinstance(setting, TupleSetting):
        setting = setting.elements[algorithm.slots(name).index(slot)]
    single = setting if isinstance(setting, ScalarSetting) else ScalarSetting(algorithm.default(slot))
    return single if is_number(single.base) else None


def _folded(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows that take the same course as one row, which has all their names."""
    courses: dict[Row, list[str]] = {}
    for row in rows:
        courses.setdefault(replace(row, names=()), []).extend(row.names)
    return tuple(replace(course, names=tuple(names)) for course, names in courses.items())
