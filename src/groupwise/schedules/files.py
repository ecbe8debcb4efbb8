"""Schedules as plain data, the same for TOML, YAML and JSON.

A table names one shape; that key holds the shape's first argument, and the other arguments keep their names:

    { cosine = 3e-4, warmup = "5%" }
    { multi_step = 0.1, gamma = 0.1, at = ["50%", "75%"] }
    { then = [{ constant = 0.1 }, { linear = 0.1 }], at = "80%" }
    { scaled = { cosine = 3e-4 }, by = 0.1 }

There is no parallel configuration: the keys are the constructor's arguments, and the constructor checks them. Both
directions are generic over the fields, and `decode(encode(s)) == s`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeGuard

from groupwise._spelling import shown
from groupwise.errors import ScheduleError, listed, unknown, within
from groupwise.schedules.arguments import from_table, given, signature
from groupwise.schedules.custom import Function, Piecewise
from groupwise.schedules.cycles import CosineRestarts, Triangular
from groupwise.schedules.decays import Constant, Exponential, InverseSqrt, MultiStep, StepDecay
from groupwise.schedules.finite_curves import Cosine, Linear, Polynomial, WarmupStableDecay
from groupwise.schedules.lengths import Length
from groupwise.schedules.one_cycles import OneCycle
from groupwise.schedules.reductions import Plateau
from groupwise.schedules.schedule import DEEPEST, Clamped, Scaled, Schedule, Then

Plain: TypeAlias = "float | str | bool | list[Plain] | dict[str, Plain]"

KINDS: Mapping[str, type[Schedule]] = {
    cls.kind: cls
    for cls in (
        Constant, Linear, Cosine, Polynomial, WarmupStableDecay, OneCycle,
        Exponential, StepDecay, MultiStep, InverseSqrt, Triangular, CosineRestarts,
        Piecewise, Function, Plateau, Then, Scaled, Clamped,
    )
}  # fmt: skip
DEEPEST_DATA = 2 * DEEPEST + 4  # a `then` is a list in a table, and points are lists in a list


def is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether `value` is a mapping with the name of a schedule among its keys, and so meant for `decode`."""
    return isinstance(value, Mapping) and any(isinstance(key, str) and key in KINDS for key in value)


def encode(schedule: Schedule) -> dict[str, Plain]:
    """The table of `schedule`, defaults left out. Raises `ScheduleError` for a `function`: that is Python only."""
    if not isinstance(schedule, Schedule):
        raise ScheduleError(f"{shown(schedule)} is not a schedule")
    if isinstance(schedule, Function):
        raise ScheduleError(f"{schedule} is Python only and cannot be written to a file; draw it as a piecewise")
    (_, first), *rest = given(schedule).items()
    return {schedule.kind: _encoded(first), **{name: _encoded(value) for name, value in rest}}


def decode(table: object) -> Schedule:
    """The schedule that `table` describes. Raises `ScheduleError` (never anything else, on plain data) if none."""
    return _decoded(table, 0)


def _encoded(value: object) -> Plain:
    if isinstance(value, Schedule):
        return encode(value)
    if isinstance(value, Length):
        return str(value)
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise ScheduleError(f"{shown(value)} cannot be written to a file")


def _decoded(table: object, depth: int) -> Schedule:
    if not isinstance(table, Mapping):
        raise ScheduleError(f"a schedule is a table such as {{ cosine = 3e-4 }}, not {shown(table)}")
    kind = _kind(table)
    cls = KINDS[kind]
    first, *rest = signature(cls)
    keys = {kind: first, **{name: name for name in rest}}
    with within(kind):
        values = from_table(cls, {key: _plain(value, depth + 1) for key, value in table.items()}, keys)
    build: Callable[..., Schedule] = cls
    return build(**values)


def _kind(table: Mapping[object, object]) -> str:
    """The shape that `table` names, once and rightly."""
    keys = [key if isinstance(key, str) else shown(key) for key in table]
    named = [key for key in keys if key in KINDS]
    if len(named) > 1:
        raise ScheduleError(f"a table names one schedule; this one names {listed(named)}")
    if not named:
        arguments = {name for cls in KINDS.values() for name in signature(cls)}
        guess = next((key for key in keys if key not in arguments), None)
        what = "no schedule is named" if guess is None else unknown("schedule", guess[:40], KINDS)
        raise ScheduleError(f"{what}: {shown(dict(table))}")
    if named[0] == Function.kind:
        raise ScheduleError("function is Python only: a file cannot hold one")
    return named[0]


def _plain(value: object, depth: int) -> object:
    """`value` with every table inside it decoded."""
    if depth > DEEPEST_DATA:
        raise ScheduleError(f"nested more than {DEEPEST_DATA} levels deep")
    if isinstance(value, Mapping):
        return _decoded(value, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value
