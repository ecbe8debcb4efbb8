"""The `[balance]` table of a plan file, and back.

    [balance]
    method = "CAGrad"                       # a method by its name; its arguments are the other keys
    c = 0.4

    [balance]
    weights = { seg = 1.0, depth = { linear = 0.0, end = 0.5 } }        # without a name: Static

    [balance]
    method = "Smoothed"                     # a method around another: `of` holds that one, as a table or as its name
    rate = 0.9
    of = { method = "NashMTL" }
    task_only = "weighted"                  # an argument of the balancer, beside those of the method

There is no parallel configuration: a method is a frozen dataclass of its constants, the keys are its arguments, and its
constructor checks them. `decode(encode(method)).method == method`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final, get_args, get_type_hints

from groupwise import _formats as formats
from groupwise._spelling import shown
from groupwise.balance.method import Method, TaskOnly
from groupwise.balance.methods import METHODS
from groupwise.errors import BalanceError, ScheduleError, nearest, unknown, within
from groupwise.schedules import Schedule
from groupwise.schedules import encode as encode_schedule
from groupwise.schedules.arguments import from_table, given, signature

INNER = "of"
"""The key of the method inside another."""


@final
@dataclass(frozen=True)
class Stated:
    """What a `[balance]` table states: the arguments of the balancer that a file can hold."""

    method: Method
    task_only: TaskOnly | None = None


def read_balance(path: str | os.PathLike[str]) -> Stated:
    """The `[balance]` table of a plan file (TOML, YAML or JSON by its suffix); its other tables are not looked at.

    Raises `PlanError` for a file that is none, `BalanceError` for a table that is missing or wrong, naming the file.
    """
    try:
        place = Path(path)
    except TypeError:
        raise BalanceError(f"a balancer is loaded from the path of a plan file, not from {shown(path)}") from None
    with within(str(path)):
        data = formats.load(place)
        if "balance" not in data:
            hint = f"; did you mean [balance] by {shown(near[0])}?" if (near := nearest("balance", data)) else ""
            raise BalanceError(f'there is no [balance] table{hint}: add one, such as method = "CAGrad"')
        with within("balance"):
            return decode(data["balance"])


def decode(table: object) -> Stated:
    """What a `[balance]` table states. Raises `BalanceError` or `PlanError`, on plain data never anything else."""
    if not isinstance(table, Mapping):
        raise BalanceError(f'it is a table, such as method = "CAGrad", not {shown(table)}')
    if "heads" in table:
        raise BalanceError('heads is called task_only now: "weighted" or "unweighted"')
    own = {key: value for key, value in table.items() if key != "task_only"}
    return Stated(_method(own, beside=("task_only",)), _task_only(table.get("task_only")))


def encode(method: Method, task_only: TaskOnly | None = None) -> dict[str, Any]:
    """The table of a method, defaults left out. Raises `BalanceError` for what only Python can hold."""
    cls = METHODS.get(method.name)
    if cls is None or not isinstance(method, cls):
        raise BalanceError(f"{method.name} is Python only: a file names one of the methods that come with groupwise")
    with within(method.name):
        keys = {argument: key for key, argument in _keys(cls).items()}
        table = {keys[argument]: _encoded(value) for argument, value in given(method).items()}
    return {"method": method.name, **table, **({"task_only": task_only} if task_only else {})}


def _method(data: object, beside: tuple[str, ...] = ()) -> Method:
    table = {"method": data} if isinstance(data, str) else data
    if not isinstance(table, Mapping):
        raise BalanceError(f"a method is its name, or a table with its name and its arguments, not {shown(data)}")
    name = table.get("method", "Static" if "weights" in table else None)
    if name is None:
        raise BalanceError('no method is named: write method = "CAGrad", or weights by task')
    if not isinstance(name, str) or name not in METHODS:
        raise BalanceError(unknown("method", name, METHODS) if isinstance(name, str) else f"{shown(name)} is no method")
    cls: Callable[..., Method] = METHODS[name]
    return cls(**_arguments(METHODS[name], {k: value for k, value in table.items() if k != "method"}, beside))


def _arguments(cls: type[Method], table: Mapping[Any, object], beside: tuple[str, ...]) -> dict[str, object]:
    """The arguments of `cls`. Raises `BalanceError`."""
    keys, inner, hints = _keys(cls), {}, get_type_hints(cls)
    with within(cls.__name__):
        for key in keys.keys() & table.keys():
            hint = hints[signature(cls)[keys[key]].name]
            if isinstance(hint, type) and issubclass(hint, Method):
                with within(key):
                    inner[key] = _method(table[key])
        try:
            return from_table(cls, {**table, **inner}, keys, "argument", beside)
        except ScheduleError as error:
            raise BalanceError(str(error)) from error.__cause__


def _keys(cls: type[Method]) -> dict[str, str]:
    """The arguments of `cls` by their keys in a file: the same, but that `method` is the name's."""
    return {INNER if argument == "method" else argument: argument for argument in signature(cls)}


def _encoded(value: object) -> object:
    if isinstance(value, Method):
        return encode(value)
    if isinstance(value, Schedule):
        return encode_schedule(value)
    if isinstance(value, Mapping):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise BalanceError(f"{shown(value)} is Python only and cannot be written to a file")


def _task_only(data: object) -> TaskOnly | None:
    if data is None or data in get_args(TaskOnly):
        return data  # type: ignore[return-value]  # mypy does not narrow to the literals
    raise BalanceError(f'task_only is "weighted" or "unweighted", not {shown(data)}')
