"""Curves that repeat for as long as the run lasts.

    triangular        low → high over `up`, back over `down`, again       CyclicLR (Smith, 2017)
    cosine_restarts   half a cosine per cycle, each `factor` times longer than the one before
                      CosineAnnealingWarmRestarts (SGDR, Loshchilov and Hutter, 2017)

A cycle that comes out shorter than a step counts as one step.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, final

from groupwise import _pickling
from groupwise.errors import ScheduleError
from groupwise.schedules.arguments import NonNegative, Number, Period, Span, Times
from groupwise.schedules.decays import geometric
from groupwise.schedules.finite_curves import cosine_left, interpolate
from groupwise.schedules.names_elsewhere import explained_arguments
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import EndlessCurve


@_pickling.public("groupwise.schedules:triangular")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Triangular(EndlessCurve):
    """Straight lines from `low` to `high` and back, again and again.

    Args:
        low: the value at the ends of a cycle.
        high: the value at its turning point; a momentum has its `low` above its `high`.
        up: the length of the rise.
        down: the length of the fall; None is as long as `up`.
        mode: how the height of a cycle changes: "triangular" not at all, "triangular2" halves it every cycle,
            "exp_range" multiplies it by `gamma` every step.
        gamma: at least 0, for "exp_range".
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: Smith 2017; `torch.optim.lr_scheduler.CyclicLR`, which also cycles the momentum from 0.9 to 0.8
    and back, unless it is given `cycle_momentum=False`: `momentum()` is that schedule.

    >>> [triangular(0.0, 1.0, up="2 steps", mode="triangular2").at(t) for t in range(7)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]
    """

    low: Number
    high: Number
    _: KW_ONLY
    up: Period
    down: Span | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: NonNegative = 1.0

    def curve(self, t: int, segment: Segment) -> float:
        up = max(1, segment.steps(self.up))
        down = up if self.down is None else segment.steps(self.down)
        cycle, since = divmod(t, up + down)
        height = since / up if since <= up else (up + down - since) / down
        return self.low + (self.high - self.low) * height * self._share(t, cycle)

    def momentum(self, low: float = 0.8, high: float = 0.9) -> Triangular:
        """The momentum that `CyclicLR` cycles along with such a learning rate: `high`, `low` at the turn, `high`.

        For the `momentum` of SGD and the `beta1` of Adam.

        Args:
            low: the value where the learning rate turns (base_momentum).
            high: the value at the ends of a cycle (max_momentum).

        Raises:
            ScheduleError: the learning rate has a `warmup` before its cycles, which the twin has not.

        >>> rate = triangular(1e-3, 1e-2, up="2 steps")
        >>> [round(rate.momentum().at(t), 3) for t in range(5)]
        [0.9, 0.85, 0.8, 0.85, 0.9]
        """
        if self.warmup is not None:
            raise ScheduleError(f"{self}: cycles with a warmup before them have no twin: write out the momentum's")
        return replace(self, low=high, high=low)

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.low, self.high

    def _share(self, t: int, cycle: int) -> float:
        if self.mode == "exp_range":
            return geometric(1.0, self.gamma, t)
        return 0.5**cycle if self.mode == "triangular2" else 1.0


@_pickling.public("groupwise.schedules:cosine_restarts")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class CosineRestarts(EndlessCurve):
    """Half a cosine from `start` to `end`, then again, each cycle `factor` times as long as the last.

    Args:
        start: the value at the start of each cycle.
        end: the value towards its end.
        first: the length of the first cycle.
        factor: a whole number of at least 1.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: Loshchilov and Hutter 2017 (SGDR); `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`, whose T_0 is
    `first` and T_mult `factor`.

    >>> [round(cosine_restarts(1.0, first="2 steps", factor=2).at(t), 3) for t in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    start: Number
    end: Number = 0.0
    _: KW_ONLY
    first: Period
    factor: Times = 1

    def curve(self, t: int, segment: Segment) -> float:
        n = max(1, segment.steps(self.first))
        if self.factor == 1:
            t %= n
        while t >= n:
            t -= n
            n *= self.factor
        return interpolate(self.start, self.end, cosine_left(t / n))

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.start, self.end
