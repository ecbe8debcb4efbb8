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

from groupwise import _pickling
from groupwise.schedules import arguments
from groupwise.schedules.arguments import NonNegative, Number, Period, Spans
from groupwise.schedules.lengths import Length, epochs
from groupwise.schedules.names_elsewhere import explained_arguments
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


@_pickling.public("groupwise.schedules:constant")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Constant(EndlessCurve):
    """Always `value`.

    Args:
        value: the value.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: `torch.optim.lr_scheduler.ConstantLR` is two of these and a `then`.

    >>> [constant(0.1, warmup="2 steps").at(t) for t in range(3)]
    [0.05, 0.1, 0.1]
    """

    value: Number

    def curve(self, t: int, segment: Segment) -> float:
        return self.value

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.value,)


@_pickling.public("groupwise.schedules:exponential")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Exponential(EndlessCurve):
    """Exponential decay: `start · gamma^(t/every)` at step t.

    Args:
        start: the first value.
        gamma: the factor per `every`, at least 0.
        every: a length, one epoch by default.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: `torch.optim.lr_scheduler.ExponentialLR`, between its epochs too.

    >>> [exponential(1.0, 0.25, every="2 steps").at(t) for t in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """

    start: Number
    gamma: NonNegative
    _: KW_ONLY
    every: Period = EACH_EPOCH

    def curve(self, t: int, segment: Segment) -> float:
        return geometric(self.start, self.gamma, t / max(1, segment.steps(self.every)))

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.start,)


@_pickling.public("groupwise.schedules:step_decay")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class StepDecay(EndlessCurve):
    """Decay in steps: `start · gamma^⌊t/every⌋` at step t.

    Args:
        start: the first value.
        gamma: the factor, at least 0, each time that `every` has passed.
        every: a length.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: `torch.optim.lr_scheduler.StepLR`.

    >>> [step_decay(1.0, 0.5, every="2 steps").at(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    start: Number
    gamma: NonNegative
    _: KW_ONLY
    every: Period

    def curve(self, t: int, segment: Segment) -> float:
        return geometric(self.start, self.gamma, t // max(1, segment.steps(self.every)))

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.start,)


@_pickling.public("groupwise.schedules:multi_step")
@explained_arguments
@final
@dataclass(frozen=True, repr=False, init=False)
class MultiStep(EndlessCurve):
    """Decay at milestones: `start · gamma^(milestones passed)`.

    Args:
        start: the first value.
        gamma: the factor at each milestone, at least 0.
        at: lengths, counted from the warmup's end.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: `torch.optim.lr_scheduler.MultiStepLR`.

    >>> [multi_step(1.0, 0.5, at=["1 step", "3 steps"]).at(t) for t in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

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


@_pickling.public("groupwise.schedules:inverse_sqrt")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class InverseSqrt(EndlessCurve):
    """Inverse square root of time: `peak · √(s/(t + s))` at step t, s being the timescale.

    Args:
        peak: the first value; half of it is left after 3 s.
        timescale: the length s; by default the warmup's, and 10,000 steps without one.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: Vaswani et al. 2017; transformers' `get_inverse_sqrt_schedule`.

    >>> [inverse_sqrt(1.0, timescale="4 steps").at(t) for t in (0, 12, 60)]
    [1.0, 0.5, 0.25]
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
