"""The laws of schedules: a value over time that nothing advances, evaluated over runs of many lengths.

They hold for the shapes and combinators of `groupwise.schedules` by construction. What can break them is a
`function(callable)`: one that counts its own calls, draws a number or divides by what is left of the run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields
from itertools import combinations

from groupwise.errors import LengthError, ScheduleError
from groupwise.schedules import Schedule, decode, encode, function
from groupwise.testing.law import Law, demand

TOTALS = (0, 1, 2, 7, 24, 60)
EPOCHS = (1, 4, 9)
BEYOND = 3


def schedule_laws(schedule: Schedule) -> Iterator[Law]:
    """Every law of schedules that applies to this one; a schedule with a `function` inside has no file form."""
    part = repr(schedule)
    laws: dict[str, Callable[[Schedule], None]] = {
        "it is a pure function of its arguments": _pure,
        "its value is a finite number at every step": _finite,
        "past the end the last value holds": _holds,
        "it works exactly when what it needs is given": _asks,
        "it is an immutable value": _immutable,
        "a product with a number multiplies every value": _scales,
    }
    if not _freehand(schedule):
        laws["a file gives back what was written"] = _written
    for name, search in laws.items():
        yield Law(part, name, _bound(search, schedule))


def _bound(search: Callable[[Schedule], None], schedule: Schedule) -> Callable[[], None]:
    return lambda: search(schedule)


def _moments() -> Iterator[tuple[int, int, int]]:
    """A step, the length of the run, and that of an epoch."""
    for total in TOTALS:
        for epoch in EPOCHS:
            for step in range(0, total + BEYOND, max(1, total // 7)):
                yield step, total, epoch


def _pure(schedule: Schedule) -> None:
    moments = list(_moments())
    before, there = repr(schedule), [schedule.at(*moment) for moment in moments]
    back = [schedule.at(*moment) for moment in reversed(moments)][::-1]
    for moment, first, second in zip(moments, there, back, strict=True):
        demand(first == second, f"at(step, total, epoch) = at{moment} was {first}, then {second}")
    demand(repr(schedule) == before, f"it changed into {schedule!r} by being evaluated")


def _finite(schedule: Schedule) -> None:
    for moment in _moments():
        try:
            value: object = schedule.at(*moment)
        except ScheduleError as error:
            demand(False, f"at{moment}: {error}")
            return
        demand(type(value) is float and math.isfinite(value), f"at{moment} is {value!r}, which is no finite float")


def _holds(schedule: Schedule) -> None:
    for total in TOTALS:
        for epoch in EPOCHS:
            last, later = schedule.at(total, total, epoch), schedule.at(total + 40, total, epoch)
            demand(last == later, f"a run of {total} steps ends at {last}, but {later} comes 40 steps later")


def _asks(schedule: Schedule) -> None:
    sizes = {"total_steps": 24, "steps_per_epoch": 4}
    for count in range(3):
        for names in combinations(sizes, count):
            known = {name: sizes[name] for name in names}
            enough = schedule.needs <= set(names)
            demand(_answers(schedule, known) is enough, f"it needs {set(schedule.needs) or 'nothing'}, given {known}")


def _answers(schedule: Schedule, known: dict[str, int]) -> bool:
    try:
        schedule.at(1, known.get("total_steps"), known.get("steps_per_epoch"))
    except LengthError:
        return False
    return True


def _immutable(schedule: Schedule) -> None:
    twin = copy.deepcopy(schedule)
    demand(twin == schedule and hash(twin) == hash(schedule), "a copy is not equal to it")
    for field in fields(schedule):
        try:
            setattr(twin, field.name, None)
        except FrozenInstanceError:
            continue
        demand(False, f"its field {field.name!r} can be assigned to")


def _scales(schedule: Schedule) -> None:
    double = schedule.scaled(2.0)
    for moment in _moments():
        once, twice = schedule.at(*moment), double.at(*moment)
        demand(twice == 2.0 * once, f"at{moment} is {once}, and twice it {twice}")


def _written(schedule: Schedule) -> None:
    table = encode(schedule)
    back = decode(table)
    demand(back == schedule, f"written as {table}, read as {back!r}")


def _freehand(schedule: Schedule) -> bool:
    return isinstance(schedule, function) or any(map(_freehand, schedule.parts))
