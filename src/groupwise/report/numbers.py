"""What a course of numbers comes to, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from groupwise._spelling import number


def finite(values: Iterable[float]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if math.isfinite(value)]


def total(values: Iterable[float]) -> float:
    """The sum of the finite values; infinite or nan where it is beyond any float."""
    numbers = finite(values)
    try:
        return math.fsum(numbers)
    except OverflowError:
        return sum(numbers)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of the finite values lie (nearest rank); nan where there are none."""
    ordered = sorted(finite(values))
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else math.nan


def median(values: Iterable[float]) -> float:
    """The middle one of the finite values (the mean of two); nan where there are none."""
    ordered = sorted(finite(values))
    middle = len(ordered) // 2
    if not ordered:
        return math.nan
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def share(held: Sequence[object]) -> float:
    """The share of true ones; nan of none."""
    return sum(map(bool, held)) / len(held) if held else math.nan


def formatted(value: float) -> str:
    """`0.0123`, `1e-5`, `nan`, `-` for nothing."""
    if not math.isfinite(value):
        return str(value)
    return number(float(value), 3)


def percent(part: float) -> str:
    """`12 %`; never 0 % or 100 % of what is not none or all."""
    if math.isnan(part):
        return "nan"
    hundredths = 100 * part
    if 0 < hundredths < 1 or 99 < hundredths < 100:
        return f"{'<' if hundredths < 1 else '>'}{1 if hundredths < 1 else 99} %"
    return f"{hundredths:.0f} %"


def quoted(names: Sequence[str], most: int = 4) -> str:
    """`a`, `b` and 3 more."""
    shown = [f"'{name}'" for name in names[:most]]
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else "none"
