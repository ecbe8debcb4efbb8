"""Selectors on values, which training changes, and on whatever else a predicate can say.

A rule on a statistic is asked anew at each regrouping; that it selects nothing today is no mistake, so these selectors
are *dynamic*. Both ends of the interval are excluded, and nan (no gradient yet) lies in no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, final

from groupwise._pickling import Public, Reduced
from groupwise.errors import SelectorError, unknown
from groupwise.select.info import ParameterInfo
from groupwise.select.selectors import Atom, Infos, Selector
from groupwise.select.statistics import STATISTICS

MAGNITUDES = ("mean_abs", "norm", "sparsity")


def magnitude(*, above: float | None = None, below: float | None = None, of: str = "mean_abs") -> Selector:
    """Parameters whose weights are large or small; ends excluded.

    Args:
        above, below: the ends; at least one.
        of: the mean absolute weight ("mean_abs"), the Euclidean norm ("norm"), the share of exact zeros ("sparsity").

    Raises:
        SelectorError: no end, an end that is no finite number, an interval that holds nothing, or an unknown `of`.
    """
    if of not in MAGNITUDES:
        raise SelectorError(f"{unknown('magnitude', str(of)[:80], MAGNITUDES)}; statistic() has the others")
    return Statistic(of, above, below)


def statistic(name: str, *, above: float | None = None, below: float | None = None) -> Selector:
    """Parameters with a statistic (`STATISTICS`) above or below a number; ends excluded.

    Raises:
        SelectorError: an unknown statistic, no end, an end that is no finite number, an interval that holds nothing.
    """
    return Statistic(name, above, below)


def where(predicate: Callable[[ParameterInfo], object]) -> Selector:
    """Parameters that satisfy a function of their info. Python only: a file cannot say it.

    Raises:
        SelectorError: not a function.
    """
    return Where(predicate)


@final
@dataclass(frozen=True, slots=True)
class Statistic(Atom):
    """`statistic(name, …)` and `magnitude(…)`."""

    name: str
    above: float | None
    below: float | None

    key: ClassVar[str] = "statistic"

    def __post_init__(self) -> None:
        if self.name not in STATISTICS:
            raise SelectorError(unknown("statistic", str(self.name)[:80], STATISTICS))
        if self.above is None and self.below is None:
            raise SelectorError(f"{self.name}: give above= or below= or both")
        ends = [_finite(self.name, end) for end in (self.above, self.below) if end is not None]
        if len(ends) == 2 and ends[0] >= ends[1]:
            raise SelectorError(f"{self.name}: above must be less than below, or nothing lies between")

    @property
    def dynamic(self) -> bool:
        """It reads values."""
        return True

    def matches(self, info: ParameterInfo) -> bool:
        """Whether the value lies strictly between the ends, now."""
        value = info.statistic(self.name)
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)

    def suggest(self, infos: Infos) -> Iterator[str]:
        """Nothing: values change."""
        return iter(())

    @property
    def text(self) -> str:
        """`mean_abs > 0.1`, `0.1 < norm < 2`."""
        if self.above is None or self.below is None:
            return f"{self.name} < {self.below}" if self.above is None else f"{self.name} > {self.above}"
        return f"{self.above} < {self.name} < {self.below}"

    def entry(self) -> tuple[str, dict[str, Any]]:
        """A table of the ends, as `magnitude` where that can say it."""
        ends = {word: end for word, end in (("above", self.above), ("below", self.below)) if end is not None}
        if self.name not in MAGNITUDES:
            return "statistic", {"name": self.name, **ends}
        return "magnitude", ends if self.name == MAGNITUDES[0] else {**ends, "of": self.name}


@final
@dataclass(frozen=True, slots=True)
class Where(Atom):
    """`where(predicate)`."""

    predicate: Callable[[ParameterInfo], object]

    key: ClassVar[str] = "where"

    def __post_init__(self) -> None:
        if not callable(self.predicate) or isinstance(self.predicate, type) or self.predicate.__hash__ is None:
            raise SelectorError("where() takes a function of a ParameterInfo, as where(lambda info: info.numel > 1000)")

    def matches(self, info: ParameterInfo) -> bool:
        """What the predicate says."""
        return bool(self.predicate(info))

    def suggest(self, infos: Infos) -> Iterator[str]:
        """Nothing: a function cannot be searched for."""
        return iter(())

    @property
    def text(self) -> str:
        """The function's name."""
        return str(getattr(self.predicate, "__name__", type(self.predicate).__name__)).strip("<>")

    def entry(self) -> tuple[str, Any]:
        """There is none."""
        raise SelectorError(f"{self} is Python only: a file cannot hold a function; say it by name, role, kind or tag")

    def __reduce__(self) -> Reduced:
        return Public("groupwise.select:where"), (self.predicate,)


def _finite(name: str, end: object) -> float:
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise SelectorError(f"{name}: above and below are numbers, not {type(end).__name__}")
    try:
        number = float(end)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SelectorError(f"{name}: above and below are finite numbers")
    return number
