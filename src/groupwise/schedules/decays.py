"""Curves with no end of their own: they go on as long as the run does.

    constant       v
    exponential    start · gamma^(t / every)                   ExponentialLR, between its epochs too
    step_decay     start · gamma^⌊t / every⌋                   StepLR
    multi_step     start · gamma^(milestones passed)           MultiStepLR
    inverse_sqrt   start · √(s / (t + s)), s the timescale      Vaswani et al., 2017, as in Hugging Face transformers

A period that comes out shorter than a step counts as one step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import final

from groupwise.schedules import arguments
from groupwise.schedules.arguments import NonNegative, Number, Period, Spans
from groupwise.schedules.lengths import Length, epochs
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import EndlessCurve

EACH_EPOCH = epochs(1)
TIMESCALE = 10_000  # of inverse_sqrt without a warmup, in steps


def geometric(start: float, gamma: float, exponent: float) -> float:
    """start · gamma^exponent, an infinity where that is too large for a float."""
    try:
        return start * math.pow(gamma, exponent)
    except OverflowError:
        return math.copysign(math.inf, start) if start else 0.0


@final
@dataclass(frozen=True, repr=False)
class Constant(EndlessCurve):
    """Always `value` (torch's `ConstantLR` is two of these and a `then`)."""

    value: Number

    def curve(self, t: int, segment: Segment) -> float:
        return self.value

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.value,)


@final
@dataclass(frozen=True, repr=False)
class Exponential(EndlessCurve):
    """`start`, multiplied by `gamma` every `every`, smoothly (torch's `ExponentialLR` at whole epochs)."""

    start: Number
    gamma: NonNegative
    _: KW_ONLY
    every: Period = EACH_EPOCH

    def curve(self, t: int, segment: Segment) -> float:
        return geometric(self.start, self.gamma, t / max(1, segment.steps(self.every)))

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.start,)


@final
@dataclass(frozen=True, repr=False)
class StepDecay(EndlessCurve):
    """`start`, multiplied by `gamma` each time that `every` has passed (torch's `StepLR`)."""

    start: Number
    gamma: NonNegative
    _: KW_ONLY
    every: Period

    def curve(self, t: int, segment: Segment) -> float:
        return geometric(self.start, self.gamma, t // max(1, segment.steps(self.every)))

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.start,)


@final
@dataclass(frozen=True, repr=False, init=False)
class MultiStep(EndlessCurve):
    """`start`, multiplied by `gamma` at each length in `at`, counted from the warmup's end (torch's `MultiStepLR`)."""

    start: Number
    gamma: NonNegative
    _: KW_ONLY
    at_: Spans

    def __init__(
        self, start: float, gamma: float, *, at: Sequence[Length | str], warmup: Length | str | None = None
    ) -> None:
        arguments.store(self, {"start": start, "gamma": gamma, "at_": at, "warmup": warmup})
        self.__post_init__()

    def curve(self, t: int, segment: Segment) -> float:
        return geometric(self.start, self.gamma, sum(t >= segment.steps(milestone) for milestone in self.at_))

    @property
    def key_values(self) -> tuple[float, ...]:
        return tuple(geometric(self.start, self.gamma, passed) for passed in range(len(self.at_) + 1))


@final
@dataclass(frozen=True, repr=False)
class InverseSqrt(EndlessCurve):
    """`peak` falling as one over the square root of time, halved after three times `timescale`.

    `timescale` defaults to the warmup's length, and to 10 000 steps without one, as in transformers'
    `get_inverse_sqrt_schedule`.
    """

    peak: Number
    _: KW_ONLY
    timescale: Period | None = None

    def curve(self, t: int, segment: Segment) -> float:
        default = segment.warmup or TIMESCALE
        scale = default if self.timescale is None else max(1, segment.steps(self.timescale))
        return self.peak * math.sqrt(scale / (t + scale))

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.peak,)
