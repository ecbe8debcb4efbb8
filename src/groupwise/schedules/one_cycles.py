"""One rise and one long fall (Smith and Topin, 2018), to torch's numbers.

    two phases     start → high over `rise`,  high → end over the rest            (fast.ai's; the default)
    three phases   start → high over `rise`,  back to start in the same time,  start → end over the rest

with start = high / `start_divisor` and end = start / `end_divisor`. As in `OneCycleLR` the bounds of the phases are
not whole steps: the rise ends at `rise`·n - 1, and the curve ends at n - 1, with the run's last update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, final

from groupwise import _pickling
from groupwise.errors import ScheduleError
from groupwise.schedules.arguments import Fraction, Number, Positive
from groupwise.schedules.finite_curves import cosine_left, interpolate
from groupwise.schedules.names_elsewhere import explained_arguments
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import FiniteCurve


@_pickling.public("groupwise.schedules:one_cycle")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class OneCycle(FiniteCurve):
    """One rise to `peak` and one long fall.

    Divisors below 1 make a valley. torch's twin cycles the momentum along, by default: `momentum()` is that schedule.

    Args:
        peak: the value at the turning point (max_lr).
        rise: the share of the curve that rises, between 0 and 1 (pct_start).
        shape: "cosine" or "linear" (anneal_strategy).
        start_divisor: the first value is `peak / start_divisor` (div_factor).
        end_divisor: the last value is `peak / start_divisor / end_divisor` (final_div_factor).
        three_phase: fall back to the first value as fast as it rose, then on to the last.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.
        over: the length of the curve; by default what the warmup leaves of the run. Afterwards the end holds.

    Source: Smith and Topin 2018; `torch.optim.lr_scheduler.OneCycleLR` (its names in parentheses), which also cycles
    the momentum from 0.95 to 0.85 and back, unless it is given `cycle_momentum=False`.

    >>> curve = one_cycle(1.0, rise=0.5, shape="linear", start_divisor=4, end_divisor=2)
    >>> [round(curve.at(t, total_steps=6), 3) for t in range(6)]
    [0.25, 0.625, 1.0, 0.708, 0.417, 0.125]
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

    def momentum(self, low: float = 0.85, high: float = 0.95) -> OneCycle:
        """The momentum that `OneCycleLR` cycles along with such a learning rate: `high`, `low` at the peak, `high`.

        For the `momentum` of SGD and the `beta1` of Adam.

        Args:
            low: the value where the learning rate is at its peak (base_momentum).
            high: the value at both ends (max_momentum).

        Raises:
            ScheduleError: the learning rate has a `warmup` before its cycle, which the twin has not.

        >>> rate = one_cycle(1e-2, rise=0.5, shape="linear")
        >>> [round(rate.momentum().at(t, total_steps=5), 3) for t in range(5)]
        [0.95, 0.883, 0.867, 0.908, 0.95]
        """
        if self.warmup is not None:
            raise ScheduleError(
                f"{self}: a cycle with a warmup before it has no twin: write out its momentum's schedule"
            )
        return replace(self, peak=low, start_divisor=low / high, end_divisor=1.0)

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
