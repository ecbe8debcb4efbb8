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

from groupwise import _pickling
from groupwise.schedules.arguments import Number, Positive, Span
from groupwise.schedules.names_elsewhere import explained_arguments
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import FiniteCurve, progress


def cosine_left(x: float) -> float:
    """(1 + cos πx)/2: what a cosine leaves of the way at x; exactly 0 at the end."""
    return (1 + math.cos(math.pi * x)) / 2


def interpolate(start: float, end: float, left: float) -> float:
    """The value with a share `left` of the way from `start` to `end` to go: exact at both."""
    return end + (start - end) * left if left < 1 else start


@_pickling.public("groupwise.schedules:linear")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Linear(FiniteCurve):
    """A straight line: `start + (end - start) t/n` at step t of n.

    Args:
        start: the first value.
        end: the value after n steps.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.
        over: the length of the curve; by default what the warmup leaves of the run. Afterwards the end holds.

    Source: `torch.optim.lr_scheduler.LinearLR`, in values rather than factors.

    >>> [linear(1.0, 0.5).at(t, total_steps=4) for t in range(5)]
    [1.0, 0.875, 0.75, 0.625, 0.5]
    """

    start: Number
    end: Number = 0.0

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        return interpolate(self.start, self.end, 1 - progress(t, n))

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.start, self.end


@_pickling.public("groupwise.schedules:cosine")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Cosine(FiniteCurve):
    """Half a cosine: `end + (peak - end) (1 + cos πt/n)/2` at step t of n.

    Args:
        peak: the first value.
        end: the value after n steps.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.
        over: the length of the curve; by default what the warmup leaves of the run. Afterwards the end holds.

    Source: Loshchilov and Hutter 2017 (SGDR); `torch.optim.lr_scheduler.CosineAnnealingLR`, whose T_max is `over`.

    >>> [round(cosine(1.0, warmup="2 steps").at(t, total_steps=6), 3) for t in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    peak: Number
    end: Number = 0.0

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        return interpolate(self.peak, self.end, cosine_left(progress(t, n)))

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.peak, self.end


@_pickling.public("groupwise.schedules:polynomial")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Polynomial(FiniteCurve):
    """A power of the time left: `end + (start - end) (1 - t/n)^power` at step t of n.

    Args:
        start: the first value.
        end: the value after n steps.
        power: above zero; 1 is a straight line.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.
        over: the length of the curve; by default what the warmup leaves of the run. Afterwards the end holds.

    Source: `torch.optim.lr_scheduler.PolynomialLR`, which always ends at 0.

    >>> [polynomial(1.0, power=2).at(t, total_steps=4) for t in range(5)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    start: Number
    end: Number = 0.0
    power: Positive = 1.0

    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        return interpolate(self.start, self.end, (1 - progress(t, n)) ** self.power)

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.start, self.end


@_pickling.public("groupwise.schedules:warmup_stable_decay")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class WarmupStableDecay(FiniteCurve):
    """`peak`, held until the last `decay` steps of the curve, which go to `end` along `shape`.

    What is left of the way at a share x of the decay: 1 - x (linear), (1 + cos πx)/2 (cosine), 1 - √x (sqrt).

    Args:
        peak: the value that is held.
        decay: the length of the decay at the end; one longer than the curve takes all of it.
        end: the value after the decay.
        shape: "linear", "cosine" or "sqrt"; the last was the best in Hägele et al. 2024.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.
        over: the length of the curve; by default what the warmup leaves of the run. Afterwards the end holds.

    Source: Hu et al. 2024 (MiniCPM), Hägele et al. 2024.

    >>> [warmup_stable_decay(1.0, decay="50%").at(t, total_steps=4) for t in range(5)]
    [1.0, 1.0, 1.0, 0.5, 0.0]
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
