"""The small values a rule may declare besides plain numbers, text and schedules.

A *factor* multiplies whatever value finally stands, wherever in the cascade it appears; `exact(x)` is a value that no
earlier factor touches. `scale(0.1) * layer_decay(0.75)` composes. Factors are values: they know nothing of the
parameter until the cascade asks `Factor.multiplier` with what it has found out about it.
"""

from __future__ import annotations

import functools
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Never

from groupwise._pickling import Public, Reduced
from groupwise._spelling import number, shown
from groupwise.errors import PlanError, ResolutionError, within
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo

ScaleFunction = Callable[[ParameterInfo], float]


def finite(what: str, x: object) -> float:
    """`x` as a float, or a `PlanError` that says what `x` should have been."""
    if isinstance(x, bool) or not isinstance(x, int | float) or not is_finite(x):
        raise PlanError(f"{what} must be a finite number, not {shown(x)}")
    return float(x)


def is_finite(x: float) -> bool:
    """Whether `x` fits a float that is a number: not nan, no infinity, no integer beyond them."""
    return -sys.float_info.max <= x <= sys.float_info.max


@dataclass(frozen=True)
class Multiplier:
    """A factor as it applies to one parameter: a number or a schedule, how the table prints it, and the size that it is
    made `of`, which tells groups apart. Where it is `measured` in the step, that says how, and the number is 1."""

    by: float | Schedule
    text: str
    of: str = ""
    measured: Factor | None = None

    @property
    def neutral(self) -> bool:
        """Whether it multiplies by exactly one."""
        return self.by == 1.0 and self.measured is None


class Factor(ABC):
    """Multiplies a hyperparameter; `a * b` composes."""

    def __mul__(self, other: object) -> Factor:
        if not isinstance(other, Factor):
            return self.__rmul__(other)
        return Product(self.parts + other.parts)

    def __rmul__(self, other: object) -> Factor:
        raise PlanError(
            f"a factor multiplies factors only, not {shown(other)}: a value and its factors are declared in rules of "
            f"their own, as lr=1e-3 in one and lr={self} in another; a number that is a factor is scale(…)"
        )

    def _only_multiplies(self, other: object) -> Never:
        raise PlanError(f"a factor only multiplies, and factors only: write {self} * scale(…), not {shown(other)}")

    __truediv__ = __rtruediv__ = __add__ = __radd__ = __sub__ = __rsub__ = __pow__ = _only_multiplies

    def __neg__(self) -> Never:
        raise PlanError(f"a factor is not negative: -{self}")

    @property
    def parts(self) -> tuple[Factor, ...]:
        """The factors it is made of, itself if it is a single one."""
        return (self,)

    @property
    def uses_depth(self) -> bool:
        """Whether the multiplier depends on the parameter's depth."""
        return False

    @property
    def counts_levels(self) -> bool:
        """Whether the multiplier depends on how many levels its rule matches."""
        return False

    def key(self, info: ParameterInfo) -> object:
        """What else of a parameter the multiplier depends on: equal for parameters that have the same one."""
        return None

    @abstractmethod
    def multiplier(self, info: ParameterInfo, below_top: int, levels: int = 1) -> Multiplier:
        """The factor for one parameter that lies `below_top` levels under the deepest that its rule matches; `levels`
        is how many it matches in the parameter's network."""


@dataclass(frozen=True)
class Scale(Factor):
    """A constant, a schedule, or a function of the parameter."""

    by: float | Schedule | ScaleFunction

    def key(self, info: ParameterInfo) -> object:
        """The parameter itself for a function of it."""
        return info.name if callable(self.by) and not isinstance(self.by, Schedule) else None

    def multiplier(self, info: ParameterInfo, below_top: int, levels: int = 1) -> Multiplier:
        """The constant or schedule itself; a function is called with the parameter's info and checked."""
        if isinstance(self.by, Schedule):
            return Multiplier(self.by, str(self.by))
        if not callable(self.by):
            return Multiplier(self.by, number(self.by, 6))
        with within(f"scale(function) for {info.name!r}"):
            by = _at_least_zero("the function's result", self.by(info))
        return Multiplier(by, number(by))

    def __str__(self) -> str:
        by = self.by if isinstance(self.by, Schedule) or not callable(self.by) else self.by.__name__
        return f"scale({f'{by:g}' if isinstance(by, float) else by})"

    def __reduce__(self) -> Reduced:
        return Public("groupwise.plan:scale"), (self.by,)


@dataclass(frozen=True)
class LayerDecay(Factor):
    """d^(top - depth): each level down from the top is slower by d (BEiT, ELECTRA), but never below `floor`.

    `levels` are globs of the modules that are the levels, empty for the guessed ones; `top` is the top of the whole
    model where only a part of it is at hand.
    """

    decay: float | Schedule
    floor: float = 0.0
    levels: tuple[str, ...] = ()
    top: int | None = None

    @property
    def uses_depth(self) -> bool:
        """Always."""
        return True

    def multiplier(self, info: ParameterInfo, below_top: int, levels: int = 1) -> Multiplier:
        """`max(floor, decay ** below_top)`."""
        text = f"{_decay_text(self.decay)}{_superscript(below_top)}"
        if isinstance(self.decay, Schedule):
            power = _power(self.decay, below_top) if below_top else 1.0
            floored = power.clamped(low=self.floor) if self.floor and isinstance(power, Schedule) else power
            return Multiplier(floored, f"max({self.floor:g}, {text})" if self.floor else text)
        factor = self.decay**below_top
        return Multiplier(factor, text) if factor >= self.floor else Multiplier(self.floor, f"{self.floor:g} (floor)")

    def options(self) -> dict[str, object]:
        """What is declared besides the decay, as arguments of `layer_decay`."""
        levels = self.levels[0] if len(self.levels) == 1 else list(self.levels)
        given = {"floor": self.floor, "levels": levels, "top": self.top}
        return {name: value for name, value in given.items() if value or (name == "top" and value is not None)}

    def __str__(self) -> str:
        options = [f"{name}={shown(value)}" for name, value in self.options().items()]
        return f"layer_decay({', '.join([_decay_text(self.decay), *options])})"

    def __reduce__(self) -> Reduced:
        return Public("groupwise.plan:layer_decay", self.options()), (self.decay,)


@dataclass(frozen=True)
class Product(Factor):
    """Several factors, in order."""

    factors: tuple[Factor, ...]

    @property
    def parts(self) -> tuple[Factor, ...]:
        """The single factors."""
        return self.factors

    @property
    def uses_depth(self) -> bool:
        """Whether any part does."""
        return any(part.uses_depth for part in self.factors)

    def multiplier(self, info: ParameterInfo, below_top: int, levels: int = 1) -> Multiplier:
        """Refused: the cascade multiplies part by part, so that the table can print each."""
        raise ResolutionError("a product of factors is applied part by part")

    def __str__(self) -> str:
        return " * ".join(map(str, self.factors))

    def __reduce__(self) -> Reduced:
        return functools.reduce, (operator.mul, self.factors)


@dataclass(frozen=True)
class Exact:
    """A value that no earlier factor touches."""

    value: object

    def _is_no_number(self, other: object) -> Never:
        raise PlanError(f"{self} is a declaration and no number: write the value that you mean into it")

    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__ = __radd__ = __sub__ = __rsub__ = __pow__ = _is_no_number

    def __str__(self) -> str:
        return f"exact({self.value})"


def scale(x: float | Schedule | ScaleFunction | Factor) -> Factor:
    """A factor: a number, a schedule, or (in Python) a function from `ParameterInfo` to a number; none below zero.

    A factor is itself, so that `scale(fan_in(256))` reads as `scale(0.1)` does.

    Raises `PlanError` for anything else.
    """
    if isinstance(x, Factor):
        return x
    if isinstance(x, Schedule) or callable(x):
        return Scale(x)
    return Scale(_at_least_zero("scale", x))


def layer_decay(
    d: float | Schedule, *, floor: float = 0.0, levels: str | Sequence[str] = (), top: int | None = None
) -> Factor:
    """A factor d^(top - depth), `top` being the deepest level among what its rule matches, per network.

    BEiT uses 0.65 to 0.75, ELECTRA 0.8 (Clark 2020, Bao 2022). With `layer_decay(0.5, floor=0.2)` the factors from the
    top down are 1, 0.5, 0.25, 0.2, 0.2, …

    Args:
        d: 0 < d <= 1, or a schedule within these bounds. Above one the stem would learn fastest.
        floor: no factor is below it, 0 <= floor <= 1.
        levels: globs of the modules that are the levels, in place of the guessed ones: "stages.*.blocks.*" counts
            blocks where "stages.*" counts stages. `*` stands for one part of a dotted name, and a glob may begin behind
            any dot. What stands before the first is level 0, what stands after the last is one above it.
        top: the level that keeps its rate, where it is not among the parameters at hand (a stage of a pipeline).

    Raises:
        PlanError: a value out of bounds.
    """
    values = d.key_values if isinstance(d, Schedule) else (finite("layer_decay", d),)
    for x in values:
        if not isinstance(x, int | float) or not 0 < x <= 1:
            raise PlanError(
                f"layer_decay must lie in (0, 1], not {shown(x)}: it is the factor from one level to the next below"
            )
    if _at_least_zero("layer_decay's floor", floor) > 1:
        raise PlanError(f"layer_decay's floor is a factor from 0 to 1, not {floor:g}")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 0):
        raise PlanError(f"layer_decay's top is a level, a whole number from 0 upward, not {shown(top)}")
    return LayerDecay(d if isinstance(d, Schedule) else float(d), float(floor), _globs(levels), top)


def _globs(levels: object) -> tuple[str, ...]:
    globs = (levels,) if isinstance(levels, str) else levels
    if not isinstance(globs, list | tuple) or not all(isinstance(g, str) and g.strip(".*") for g in globs):
        raise PlanError(f"layer_decay's levels are globs of modules, such as 'stages.*.blocks.*', not {shown(levels)}")
    return tuple(globs)


def exact(x: object) -> Exact:
    """A value (number, schedule, tuple) that no earlier factor touches; later factors still multiply it."""
    for part in x if isinstance(x, list | tuple) else (x,):
        if isinstance(part, Factor | Exact):
            raise PlanError(f"exact takes a value, not {part}")
    return Exact(x)


def _at_least_zero(what: str, x: object) -> float:
    value = finite(what, x)
    if value < 0:
        raise PlanError(f"{what} must not be negative, got {value:g}")
    return value


def _power(schedule: Schedule, n: int) -> Schedule:
    """`schedule ** n` for n > 0, by squaring."""
    if n == 1:
        return schedule
    half = _power(schedule, n // 2)
    square = half.scaled(half)
    return square.scaled(schedule) if n % 2 else square


def _decay_text(decay: float | Schedule) -> str:
    return str(decay) if isinstance(decay, Schedule) else f"{decay:g}"


def _superscript(n: int) -> str:
    return "" if n == 1 else str(n).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
