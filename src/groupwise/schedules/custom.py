"""Curves that no formula names: drawn through points, or computed by a function of yours.

A `piecewise` is data and goes into a file; a `function` is Python only, so it can be run and previewed but not written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias, final

from groupwise import _pickling
from groupwise._spelling import number_from_text, shown
from groupwise.errors import ScheduleError
from groupwise.schedules.arguments import Kind
from groupwise.schedules.finite_curves import interpolate
from groupwise.schedules.lengths import LENGTH_FORM, Length, length
from groupwise.schedules.names_elsewhere import explained_arguments
from groupwise.schedules.numbers import number, number_form
from groupwise.schedules.schedule import Schedule
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import EndlessCurve, progress


def _points(value: object) -> tuple[tuple[Length, float], ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ScheduleError(f"{shown(value)} is not a list of points such as ('50%', 0.1)")
    return tuple(_point(item) for item in value)


def _point(value: object) -> tuple[Length, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ScheduleError(f"{shown(value)} is not a point such as ('50%', 0.1)")
    return length(value[0]), number(value[1])


def _plain_points(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return [[p[0], number_from_text(p[1])] if isinstance(p, list | tuple) and len(p) == 2 else p for p in value]


def _callable(value: object) -> object:
    if not callable(value) or isinstance(value, Schedule):
        raise ScheduleError(f"{shown(value)} is not a function of the step")
    return value


_POINT_FORM = {"type": "array", "items": [LENGTH_FORM, number_form()], "minItems": 2, "maxItems": 2}
_POINTS_FORM = {"type": "array", "items": _POINT_FORM, "minItems": 1}

Points: TypeAlias = Annotated[Sequence[tuple[Length | str, float]], Kind(_points, _plain_points, _POINTS_FORM)]
OfStep: TypeAlias = Annotated[Callable[[int], float], Kind(_callable)]


@_pickling.public("groupwise.schedules:piecewise")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Piecewise(EndlessCurve):
    """Through points, in order. Before the first point its value holds, after the last one the last's.

    Args:
        points: pairs of a length, counted from the warmup's end, and a value. Two points at one step are a jump.
        shape: "linear" joins them by straight lines, "held" holds each value until the next point.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Raises:
        ScheduleError: no points, or, once their lengths are resolved, points out of order.

    >>> [piecewise([("0 steps", 1.0), ("2 steps", 0.5)]).at(t) for t in range(4)]
    [1.0, 0.75, 0.5, 0.5]
    """

    points: Points
    shape: Literal["linear", "held"] = "linear"

    def curve(self, t: int, segment: Segment) -> float:
        resolved = [(segment.steps(when), value) for when, value in self.points]
        if any(later < earlier for (earlier, _), (later, _) in pairwise(resolved)):
            raise ScheduleError(f"{self}: points out of order, at steps {[when for when, _ in resolved]}")
        passed = sum(when <= t for when, _ in resolved)
        if passed in (0, len(resolved)):
            return resolved[max(0, passed - 1)][1]
        (start, first), (end, last) = resolved[passed - 1 : passed + 1]
        return first if self.shape == "held" else interpolate(first, last, 1 - progress(t - start, end - start))

    @property
    def key_values(self) -> tuple[float, ...]:
        return tuple(value for _, value in self.points)


@_pickling.public("groupwise.schedules:function")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Function(EndlessCurve):
    """Whatever a function of the step returns.

    Python only: it cannot be written to a file. It should be pure, since a schedule is evaluated as often as anyone
    likes. Its one key value is `call(0)`.

    Args:
        call: takes the step, counted from the warmup's end, and returns a finite number.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: `torch.optim.lr_scheduler.LambdaLR`, in values rather than factors.

    >>> [function(lambda step: 1 / (1 + step)).at(t) for t in (0, 1, 3)]
    [1.0, 0.5, 0.25]
    """

    call: OfStep

    def curve(self, t: int, segment: Segment) -> float:
        returned = self.call(t)
        try:
            return number(returned)
        except ScheduleError as error:
            raise ScheduleError(f"{self}: what it returned at step {t}: {error}") from None

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.curve(0, Segment(None, None)),)
