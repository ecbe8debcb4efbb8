"""Lengths carry their unit, so a bare number is never one.

`steps(500)`, `epochs(2)` and `percent(5)` are different statements, and each stays what it says until the size of the
run is known: a step is one optimizer update, an epoch is `steps_per_epoch` of them, a percent is a hundredth of
`total_steps`. The text form (`"500 steps"`, `"2 epochs"`, `"5%"`) is accepted wherever a length is; `str` writes it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, Never, TypeAlias, final, get_args

from groupwise._spelling import shown
from groupwise.errors import LengthError, ScheduleError, unknown
from groupwise.schedules.numbers import number

Unit: TypeAlias = Literal["steps", "epochs", "percent"]

BARE = "a bare number is never a length: write steps(500), epochs(2), percent(5) or '500 steps'"
LONGEST = 2.0**53  # beyond it a float no longer counts single steps

_NEEDS: dict[str, frozenset[str]] = {
    "steps": frozenset(),
    "epochs": frozenset({"steps_per_epoch"}),
    "percent": frozenset({"total_steps"}),
}
_SPELLINGS: dict[str, Unit] = {
    "step": "steps",
    "steps": "steps",
    "epoch": "epochs",
    "epochs": "epochs",
    "%": "percent",
    "percent": "percent",
}
_TEXT = re.compile(r"\s*([-+]?[\d._]+(?:[eE][-+]?\d+)?)\s*(\S*)\s*")
_ANY_CASE = "|".join("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word) for word in _SPELLINGS)

LENGTH_FORM: Final = {"type": "string", "pattern": rf"^\s*\+?[\d._]+([eE][-+]?\d+)?\s*({_ANY_CASE})\s*$"}
"""What a file gives for a length, as JSON Schema."""


@final
@dataclass(frozen=True)
class Length:
    """An amount of training in "steps" (whole), "epochs" or "percent" (0 to 100). Raises `ScheduleError` otherwise."""

    amount: float
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ScheduleError(unknown("unit", str(self.unit)[:40], get_args(Unit)))
        object.__setattr__(self, "amount", _checked(number(self.amount), self.unit))

    def _is_no_number(self, other: object) -> Never:
        raise ScheduleError(f"there is no arithmetic with lengths ({str(self)!r}): write the one that you mean")

    __mul__ = __rmul__ = __truediv__ = __add__ = __radd__ = __sub__ = __rsub__ = _is_no_number
    __lt__ = __le__ = __gt__ = __ge__ = _is_no_number

    @property
    def needs(self) -> frozenset[str]:
        """What `resolve` cannot do without: "total_steps", "steps_per_epoch" or nothing."""
        return _NEEDS[self.unit]

    def resolve(self, total_steps: int | None = None, steps_per_epoch: int | None = None) -> int:
        """The length in steps, rounded half up. Raises `LengthError` when the unit needs a size that is None."""
        if self.unit == "steps":
            return int(self.amount)
        size = steps_per_epoch if self.unit == "epochs" else total_steps
        if size is None:
            raise LengthError(f"{str(self)!r} needs {listed_needs(self.needs)}")
        return math.floor(self.amount * size / (100 if self.unit == "percent" else 1) + 0.5)

    def __str__(self) -> str:
        amount = repr(self.amount)
        if self.unit == "percent":
            return f"{amount}%"
        return f"{amount} {self.unit.removesuffix('s') if self.amount == 1 else self.unit}"


def listed_needs(needs: frozenset[str]) -> str:
    """`total_steps and steps_per_epoch`, as far as they are in `needs`."""
    return " and ".join(sorted(needs, reverse=True))


def _checked(amount: float, unit: str) -> float:
    if not 0 <= amount <= LONGEST:
        raise ScheduleError(f"{amount!r} {unit} is below zero or longer than any run")
    if unit == "percent" and amount > 100:
        raise ScheduleError(f"{amount!r} percent is more than the whole (100)")
    if unit == "steps" and not amount.is_integer():
        raise ScheduleError(f"{amount!r} steps is not a whole number of steps")
    return int(amount) if amount.is_integer() else amount


def steps(n: int) -> Length:
    """`n` optimizer updates."""
    return Length(n, "steps")


def epochs(n: float) -> Length:
    """`n` passes over the data, of `steps_per_epoch` updates each."""
    return Length(n, "epochs")


def percent(p: float) -> Length:
    """`p` hundredths of `total_steps`."""
    return Length(p, "percent")


def length(value: Length | str) -> Length:
    """`value` as a `Length`: itself, or read from text. Raises `ScheduleError` for a bare number or an unknown unit."""
    if isinstance(value, Length):
        return value
    if not isinstance(value, str):
        raise ScheduleError(BARE if isinstance(value, int | float) else f"{shown(value)} is not a length: {_FORMS}")
    parts = _TEXT.fullmatch(value)
    if parts is None:
        raise ScheduleError(f"{shown(value)} is not a length: {_FORMS}")
    amount, unit = parts.groups()
    if not unit:
        raise ScheduleError(BARE)
    if unit.lower() not in _SPELLINGS:
        raise ScheduleError(f"{shown(value)}: {unknown('unit', unit[:40], _SPELLINGS)}")
    return Length(_amount(amount), _SPELLINGS[unit.lower()])


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ScheduleError(f"{shown(text)} is not a number") from None


_FORMS = "write steps(500), epochs(2), percent(5), '500 steps', '2 epochs' or '5%'"
