"""Whether a course of numbers rose or fell, beyond what noise does.

Losses are compared on a logarithmic scale (on ranks where one of them is not positive), since a loss that goes from 5
to 5e12 and one that goes from 1e-6 to 1e-9 have both changed by a factor. A monotone course is fitted by pooling
adjacent violators, and E² is the share of the variance that it explains (Barlow et al., Statistical Inference under
Order Restrictions, 1972). Of n independent records without a trend E² exceeds 1 - exp(-22 / n) in about 0.3 % of all
cases, on either side. Records are seldom independent, so n is the effective number n (1 - ρ) / (1 + ρ), ρ being the
correlation between successive residuals of the fit, corrected for the bias of a short series.

Where correlation leaves too few effective records, a course that is monotone all but for a twentieth of its variance
has changed all the same: 99.5 % of stationary series with ρ = 0.9 stay below. And so has one that ends at twice or half
its beginning, with no record of one end inside the range of the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from groupwise.report.numbers import finite, formatted, median

Direction: TypeAlias = Literal["fell", "rose", "unclear"]

ENOUGH: Final = 10
"""Fewer records than this have no course."""
EVIDENCE: Final = 22.0
CERTAIN: Final = 0.95
LONG: Final = 50
"""From so many records on a nearly monotone course is one, whatever its autocorrelation."""
FACTOR: Final = 2.0
FLAT: Final = 0.05
BACK: Final = 0.2
ENDS: Final = 5
MOST: Final = 1000
"""Longer series are tested by the medians of so many equal stretches."""
AGAIN: Final = 2.0
"""From its lowest level a course has to rise by this factor to have turned."""


@final
@dataclass(frozen=True)
class Course:
    """Where a series began and ended (medians of its first 5 % and last 10 %, of 3 records at least), and what it did.

    Attributes:
        first: its first record.
        begin, end: the two levels.
        direction: "fell" or "rose" where the change is beyond noise, else "unclear".
        spread: how far a record lies from the level of the end, in the middle (median absolute deviation).
        lowest: the lowest level on the way, and `lowest_at` the position of its record.
        turned: whether it rose from there to the end by a factor of 2 and a fifth of the fall, beyond noise.
        flat: whether a change of 5 % would have shown: the medians of both halves lie within 5 %, and so does 2.6 times
            the standard error of their difference.
        records: the number of records.
        low_alone: whether no other record lies as far below its neighbours, as a factor, as the first lies below the
            beginning: single records of small batches differ by factors.
    """

    first: float
    begin: float
    end: float
    direction: Direction
    spread: float
    lowest: float
    lowest_at: int
    turned: bool
    flat: bool
    records: int
    low_alone: bool

    @property
    def change(self) -> float:
        """The change, relative to the beginning."""
        return (self.end - self.begin) / abs(self.begin) if self.begin else math.nan

    @property
    def blew_up(self) -> bool:
        """Whether it fell only from a level that it had risen to at once, back to its first record or above.

        That level is half as high again as the first record, above it by five standard deviations of the end, and by
        more than a record lies below its neighbours anywhere.
        """
        leap = self.begin - self.first
        jumped = leap > 0.5 * self.first > 0 and leap > 5 * 1.48 * self.spread
        return self.direction == "fell" and jumped and self.low_alone and self.end > 0.9 * self.first

    @property
    def how_much(self) -> str:
        """`by 12 %` or `by a factor of 40`."""
        small, large = sorted((abs(self.begin), abs(self.end)))
        if self.begin * self.end > 0 and large > FACTOR * small:
            return f"by a factor of {formatted(large / small)}"
        return f"by {formatted(100 * abs(self.change))} %" if self.begin else f"by {formatted(abs(self.end))}"

    def __str__(self) -> str:
        return f"from {formatted(self.begin)} to {formatted(self.end)}"


def course(values: Sequence[float]) -> Course | None:
    """The course of the finite values; None of fewer than ten."""
    numbers = finite(values)
    count = len(numbers)
    if count < ENOUGH:
        return None
    last = numbers[-max(count // 10, 3) :]
    begin, end = median(numbers[: max(count // 20, 3)]), median(last)
    spread = median(abs(value - end) for value in last)
    scaled, lowest_at = _scaled(_shortened(numbers)), _lowest(numbers)
    lowest = median(_window(numbers, lowest_at))
    turned = _is_back(begin, lowest, end) and _turned(numbers[lowest_at:]) and _is_beyond_noise(numbers, lowest, end)
    direction = _direction(numbers, scaled, begin, end)
    flat = direction == "unclear" and _is_flat(numbers)
    low = _is_low_alone(numbers, begin)
    return Course(numbers[0], begin, end, direction, spread, lowest, lowest_at, turned, flat, count, low)


def _direction(numbers: Sequence[float], scaled: Sequence[float], begin: float, end: float) -> Direction:
    if begin == end:
        return "unclear"
    falling = end < begin
    signed = [-value for value in scaled] if falling else scaled
    if is_rising(signed) or _by_a_factor(numbers):
        return "fell" if falling else "rose"
    return "unclear"


def is_rising(values: Sequence[float]) -> bool:
    """Whether a monotone fit explains more of the values than it would of noise."""
    fit = _monotone(values)
    mean = math.fsum(values) / len(values)
    total = math.fsum((value - mean) ** 2 for value in values)
    residuals = [value - level for value, level in zip(values, fit, strict=True)]
    left = math.fsum(residual**2 for residual in residuals)
    if not total > 0:
        return False
    explained = 1 - left / total
    effective = effective_records(residuals, left)
    if len(values) >= LONG and explained > CERTAIN:
        return True
    return explained > 1 - math.exp(-EVIDENCE / effective)


def effective_records(residuals: Sequence[float], squares: float | None = None) -> float:
    """n (1 - ρ) / (1 + ρ): as many independent records would tell as much."""
    count = len(residuals)
    left = math.fsum(residual**2 for residual in residuals) if squares is None else squares
    if not left > 0:
        return float(count)
    raw = math.fsum(a * b for a, b in itertools.pairwise(residuals)) / left
    rho = min(max(raw + (3 + 8 * max(raw, 0.0)) / count, 0.0), 0.99)
    return max(count * (1 - rho) / (1 + rho), 1.0)


def is_above(values: Sequence[float], bound: float) -> bool:
    """Whether the mean of the values lies above a bound by more than 3 of its standard errors.

    Autocorrelation is counted, a straight trend set aside. Of a mean without that difference one in 700 does; fewer
    than 8 values are too few.
    """
    numbers = finite(values)
    largest = max(map(abs, numbers), default=0.0)
    if len(numbers) < 8 or not largest > 0:
        return largest == 0 and len(numbers) >= 8 and bound < 0
    numbers, bound = [value / largest for value in numbers], bound / largest  # squares of 1e200 are beyond any float
    mean, residuals = math.fsum(numbers) / len(numbers), _detrended(numbers)
    squares = math.fsum(residual**2 for residual in residuals)
    error = math.sqrt(squares / (len(numbers) - 2) / effective_records(residuals, squares))
    return mean - bound > 3.0 * error


def _detrended(numbers: Sequence[float]) -> list[float]:
    """The residuals of a straight line."""
    count, mean = len(numbers), math.fsum(numbers) / len(numbers)
    places = [place - (count - 1) / 2 for place in range(count)]
    slope = math.fsum(p * v for p, v in zip(places, numbers, strict=True)) / math.fsum(p * p for p in places)
    return [value - mean - slope * place for place, value in zip(places, numbers, strict=True)]


def half_tail(successes: int, count: int) -> float:
    """The probability of so many successes, or more, in `count` fair throws."""
    if count > 1000:  # the normal law is close enough
        return 0.5 * math.erfc((successes - 0.5 - count / 2) / math.sqrt(count / 2))
    return float(sum(math.comb(count, k) for k in range(successes, count + 1)) / 2**count)


def _by_a_factor(numbers: Sequence[float]) -> bool:
    """Whether the ends lie apart by a factor of 2, in full."""
    first, last = numbers[:ENDS], numbers[-max(len(numbers) // 10, ENDS) :]
    low, high = sorted((first, last), key=median)
    return min(low) > 0 and min(high) > max(low) and median(high) >= FACTOR * median(low)


def _is_back(begin: float, lowest: float, end: float) -> bool:
    """Whether the end lies above the lowest level by a factor of 2, and by a part of the fall, on a logarithmic
    scale.
    """
    if not 0 < AGAIN * lowest <= end or begin <= 0:
        return False
    return math.log(end / lowest) >= BACK * math.log(max(begin / lowest, 1.0))


def _turned(tail: Sequence[float]) -> bool:
    return len(tail) >= ENOUGH and min(tail) > 0 and is_rising(_scaled(_shortened(tail)))


def _is_beyond_noise(numbers: Sequence[float], lowest: float, end: float) -> bool:
    """Whether the end lies above the lowest level by four standard errors of a level, on a logarithmic scale: the
    lowest of many levels of noise lies below the others by half of that.
    """
    half = [math.log(value) for value in numbers[len(numbers) // 2 :] if value > 0]
    middle = median(half)
    spread = 1.48 * median(abs(value - middle) for value in half)
    return math.log(end / lowest) > 4 * 1.25 * spread / math.sqrt(len(_window(numbers, len(numbers) // 2)))


def _is_low_alone(numbers: Sequence[float], begin: float) -> bool:
    first = numbers[0]
    others = ((median(_window(numbers, at)), numbers[at]) for at in range(1, len(numbers)))
    return not any(first * level >= begin * value for level, value in others if value > 0)


def _is_flat(numbers: Sequence[float]) -> bool:
    half = len(numbers) // 2
    before, after = median(numbers[:half]), median(numbers[half:])
    spread = 1.48 * median(abs(value - after) for value in numbers[half:])
    error = 1.25 * spread * math.sqrt(2 / half)
    return len(numbers) >= LONG and max(abs(after - before), 2.6 * error) < FLAT * abs(before)


def _lowest(numbers: Sequence[float]) -> int:
    """The position whose neighbourhood has the lowest median."""
    every = max(len(numbers) // 100, 1)
    return min(range(0, len(numbers), every), key=lambda at: median(_window(numbers, at)))


def _window(numbers: Sequence[float], at: int) -> Sequence[float]:
    half = max(len(numbers) // 40, 2)
    return numbers[max(at - half, 0) : at + half + 1]


def _shortened(numbers: Sequence[float]) -> list[float]:
    count = len(numbers)
    if count <= MOST:
        return list(numbers)
    return [median(numbers[count * i // MOST : count * (i + 1) // MOST]) for i in range(MOST)]


def _scaled(numbers: Sequence[float]) -> list[float]:
    """Logarithms where all are positive, else ranks (of equal ones the mean)."""
    if min(numbers) > 0:
        return [math.log(number) for number in numbers]
    places: dict[float, list[int]] = {}
    for place, number in enumerate(sorted(numbers)):
        places.setdefault(number, []).append(place)
    return [math.fsum(places[number]) / len(places[number]) for number in numbers]


def _monotone(values: Sequence[float]) -> list[float]:
    """The rising sequence nearest to the values, by pooling adjacent violators."""
    levels: list[float] = []
    sizes: list[int] = []
    for value in values:
        levels.append(value)
        sizes.append(1)
        while len(levels) > 1 and levels[-2] > levels[-1]:
            level, size = levels.pop(), sizes.pop()
            levels[-1] = (levels[-1] * sizes[-1] + level * size) / (sizes[-1] + size)
            sizes[-1] += size
    return [level for level, size in zip(levels, sizes, strict=True) for _ in range(size)]
