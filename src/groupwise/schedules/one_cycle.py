"""One rise and one long fall (Smith and Topin, 2018), to torch's numbers.

    two phases     start → high over `rise`,  high → end over the rest            (fast.ai's; the default)
    three phases   start → high over `rise`,  back to start in the same time,  start → end over the rest

with start = high / `start_divisor` and end = start / `end_divisor`. As in `OneCycleLR` the bounds of the phases are
not whole steps: the rise ends at `rise`·n - 1, and the curve ends at n - 1, with the run's last update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from groupwise.schedules.arguments import Fraction, Number, Positive
from groupwise.schedules.finite_curves import cosine_left, interpolate
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import FiniteCurve


@final
@dataclass(frozen=True, repr=False)
class OneCycle(FiniteCurve):
    """One cycle with its turning point at `peak` (torch's `OneCycleLR`).

    There, pct_start is `rise`, anneal_strategy is `shape`, div_factor is `start_divisor`, final_div_factor is
    `end_divisor`, and total_steps is `over`.

    Divisors below 1 make a valley: the momentum that torch cycles from 0.95 to 0.85 and back is
    `one_cycle(0.85, start_divisor=0.85 / 0.95, end_divisor=1)`.
    """

    peak: Number
    rise: Fraction = 0.3
    shape: Literal["linear", "cosine"] = "cosine"
    start_divisor: Positive = 25.0
    end_divisor: Positive = 1e4
    three_phase: bool = False

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        if n == 0 and t == 0:
            return self.start
        t = min(t, max(0, n - 1))
        began, first = 0.0, self.start
        for ended, last in self._phases(n):
            if t <= ended:
                return self._between(first, last, t - began, ended - began)
            began, first = ended, last
        return self.end

    @property
    def start(self) -> float:
        """The first value."""
        return self.peak / self.start_divisor

    @property
    def end(self) -> float:
        """The last value."""
        return self.start / self.end_divisor

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.start, self.peak, self.end

    def _phases(self, n: int) -> Iterator[tuple[float, float]]:
        yield self.rise * n - 1, self.peak
        if self.three_phase:
            yield 2 * self.rise * n - 2, self.start
        yield n - 1, self.end

    def _between(self, first: float, last: float, t: float, n: float) -> float:
        x = t / n if n > 0 else 1.0
        return interpolate(first, last, cosine_left(x) if self.shape == "cosine" else 1 - x)
