"""The constants of a method, declared by their annotations.

`lr: Positive = 0.025` is the declaration; `read`, called where a method is built, turns each argument into what is
stored and refuses the rest by name. The kinds are those of schedules, and files read a method by the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

import torch

from groupwise._spelling import number_from_text, shown
from groupwise.balance.by_task import ByTask, by_task
from groupwise.balance.memory import Memory
from groupwise.balance.method import Method
from groupwise.errors import BalanceError, ScheduleError
from groupwise.schedules import Schedule, arguments, decode
from groupwise.schedules.arguments import Fraction, Kind, NonNegative, Number, Positive, Times, for_python_alone
from groupwise.schedules.numbers import number, number_form
from groupwise.schedules.schedule import SCHEDULE_FORM


def read(method: Method) -> None:
    """Read every argument of the new `method` in place. Raises `BalanceError` naming the method and the argument."""
    try:
        arguments.read(method, method.name)
    except ScheduleError as error:
        raise BalanceError(str(error)) from error.__cause__


def source(generator: torch.Generator | None, memory: Memory) -> torch.Generator:
    """What a method draws from: the generator that it was given, or else the memory's."""
    return memory.generator if generator is None else generator


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BalanceError(f"{shown(value)} is not the name of a task")
    return value


def _numbers(value: Mapping[str, float | Schedule]) -> ByTask:
    table = by_task(value)
    for task, entry in table.items():
        if isinstance(entry, Schedule):
            raise BalanceError(f"task {task!r}: a number, not a schedule ({entry})")
    return table


def _method(value: object) -> Method:
    if isinstance(value, Method):
        return value
    if isinstance(value, type) and issubclass(value, Method):
        raise BalanceError(f"{value.__name__} is the class of a method: write {value.__name__}()")
    way_out = ": wrap it in FromLosses, FromGramian or FromJacobian" if callable(value) else ""
    raise BalanceError(f"{shown(value)} is not a method{way_out}")


def _share(value: object) -> object:
    return _numbers(value) if isinstance(value, Mapping) else number(value)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise BalanceError(f'{shown(value)} is not a list of tasks: write ["depth"]')
    return tuple(_name(item) for item in value)


def _generator(value: object) -> torch.Generator:
    if not isinstance(value, torch.Generator):
        raise BalanceError(f"{shown(value)} is not a generator: write torch.Generator().manual_seed(0)")
    if value.device.type != "cpu":
        raise BalanceError(f"it is a generator of {value.device}, and the draws are made on the CPU")
    return value


def _plain(value: object) -> object:
    """What a file holds in the place of a table by task, or of one number: text that spells a number, schedules."""
    if not isinstance(value, Mapping):
        return number_from_text(value)
    return {task: decode(item) if isinstance(item, Mapping) else number_from_text(item) for task, item in value.items()}


def _by_task_form(value: Mapping[str, object]) -> Mapping[str, object]:
    return {"type": "object", "additionalProperties": value}


METHOD_FORM: Final = {"$ref": "#/definitions/method"}
"""A method inside another in a file, as JSON Schema."""

_VALUE_FORM: Final = {"anyOf": [number_form(), SCHEDULE_FORM]}

Inner: TypeAlias = Annotated[Method, Kind(_method, form=METHOD_FORM)]
Drawing: TypeAlias = Annotated[torch.Generator, Kind(_generator, for_python_alone)]
TaskName: TypeAlias = Annotated[str, Kind(_name, form={"type": "string"})]
TaskNames: TypeAlias = Annotated[
    tuple[str, ...], Kind(_names, form={"type": "array", "items": {"type": "string"}, "minItems": 1})
]
TaskNumbers: TypeAlias = Annotated[Mapping[str, float], Kind(_numbers, _plain, _by_task_form(number_form()))]
TaskValues: TypeAlias = Annotated[Mapping[str, float | Schedule], Kind(by_task, _plain, _by_task_form(_VALUE_FORM))]
TaskShares: TypeAlias = Annotated[
    float | Mapping[str, float], Kind(_share, _plain, {"anyOf": [number_form(), _by_task_form(number_form())]})
]

__all__ = [
    "Drawing",
    "Fraction",
    "Inner",
    "NonNegative",
    "Number",
    "Positive",
    "TaskName",
    "TaskNames",
    "TaskNumbers",
    "TaskShares",
    "TaskValues",
    "Times",
    "read",
    "source",
]
