"""Curves that run once from a start to an end, with x = t/n going from 0 to 1.

    linear       start + (end - start) x                      LinearLR
    cosine       end + (start - end) (1 + cos πx)/2            CosineAnnealingLR (Loshchilov and Hutter, 2017)
    polynomial   end + (start - end) (1 - x)^power            PolynomialLR
    warmup_stable_decay    start, held, then down to end over its last steps (Hu et al., 2024; Hägele et al., 2024)

They differ in how the distance to the end shrinks, so that is all each of them states.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal, final

from groupwise.schedules.arguments import Number, Positive, Span
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import FiniteCurve, progress


def cosine_left(x: float) -> float:
    """(1 + cos πx)/2: what a cosine leaves of the way at x; exactly 0 at the end."""
    return (1 + math.cos(math.pi * x)) / 2


def interpolate(start: float, end: float, left: float) -> float:
    """The value with a share `left` of the way from `start` to `end` to go: exact at both."""
    return end + (start - end) * left if left < 1 else start


@final
@dataclass(frozen=True, repr=False)
class Linear(FiniteCurve):
    """A straight line from `start` to `end` (torch's `LinearLR`, in values rather than factors)."""

    start: Number
    end: Number = 0.0

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        return interpolate(self.start, self.end, 1 - progress(t, n))

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.start, self.end


@final
@dataclass(frozen=True, repr=False)
class Cosine(FiniteCurve):
    """Half a cosine from `peak` to `end` (torch's `CosineAnnealingLR`, closed form; T_max is `over`)."""

    peak: Number
    end: Number = 0.0

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        return interpolate(self.peak, self.end, cosine_left(progress(t, n)))

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.peak, self.end


@final
@dataclass(frozen=True, repr=False)
class Polynomial(FiniteCurve):
    """From `start` to `end` as (1 - t/n) to the `power` (torch's `PolynomialLR`, which always ends at 0)."""

    start: Number
    end: Number = 0.0
    power: Positive = 1.0

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        return interpolate(self.start, self.end, (1 - progress(t, n)) ** self.power)

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.start, self.end


@final
@dataclass(frozen=True, repr=False)
class WarmupStableDecay(FiniteCurve):
    """`peak`, held until the last `decay` steps of the curve, which go to `end` along `shape`.

    What is left of the way at a share x of the decay: 1 - x (linear), (1 + cos πx)/2 (cosine), 1 - √x (sqrt, the best
    in Hägele et al., 2024). A `decay` longer than the curve starts at once and takes all of it.
    """

    peak: Number
    _: KW_ONLY
    decay: Span
    end: Number = 0.0
    shape: Literal["linear", "cosine", "sqrt"] = "linear"

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        decay = min(n, segment.steps(self.decay))
        return interpolate(self.peak, self.end, self._left(progress(t - (n - decay), decay)))

    def _left(self, x: float) -> float:
        if self.shape == "cosine":
            return cosine_left(x)
        return 1 - (math.sqrt(x) if self.shape == "sqrt" else x)

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.peak, self.end
