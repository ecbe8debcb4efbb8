"""A shape is one curve with an optional warmup before it.

A warmup of n steps gives (t + 1)/n of the curve's first value at step t < n, so that the first update is not wasted on
a zero; the curve starts at step n, with its own clock. Lengths inside the shape are counted from there, and a percent
is one of the whole segment, warmup included: `cosine(peak, warmup="10%", over="90%")` fills the run exactly.

Two kinds of curve: a `FiniteCurve` runs once over a length, which defaults to what the warmup leaves, and then holds
its end; an `EndlessCurve` has no end of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from groupwise.schedules import arguments
from groupwise.schedules.arguments import Span
from groupwise.schedules.lengths import Length
from groupwise.schedules.schedule import Schedule, Then
from groupwise.schedules.segment import Segment


@dataclass(frozen=True, repr=False)
class Shape(Schedule):
    """A curve, `curve`, after an optional `warmup`."""

    warmup: Span | None = field(default=None, kw_only=True)

    @abstractmethod
    def curve(self, t: int, segment: Segment) -> float:
        """The value `t` steps after the warmup, which took `segment.warmup` steps of the segment."""

    @final
    def value_in(self, step: int, segment: Segment) -> float:
        n = 0 if self.warmup is None else segment.steps(self.warmup)
        own = Segment(segment.total_steps, segment.steps_per_epoch, n)
        return (step + 1) / n * self.curve(0, own) if step < n else self.curve(step - n, own)

    @final
    @property
    def parts(self) -> tuple[Schedule, ...]:
        return ()

    @final
    def with_parts(self, parts: Sequence[Schedule]) -> Schedule:
        return self

    @final
    def expression(self, write: Callable[[object], str]) -> str:
        (_, first), *rest = arguments.given(self).items()
        return f"{self.kind}({', '.join([write(first), *(f'{name}={write(value)}' for name, value in rest)])})"


@dataclass(frozen=True, repr=False)
class EndlessCurve(Shape):
    """A curve without an end of its own."""

    @final
    @cached_property
    def needs(self) -> frozenset[str]:
        return _needs_of_lengths(self)


@dataclass(frozen=True, repr=False)
class FiniteCurve(Shape):
    """A curve that runs once, `over` a length (None: what the warmup leaves), and then holds its end."""

    over: Span | None = field(default=None, kw_only=True)

    @abstractmethod
    def curve_over(self, t: int, n: int, segment: Segment) -> float:
        """The value `t` steps into the `n` of the curve; t may exceed n, and n may be 0."""

    @final
    def curve(self, t: int, segment: Segment) -> float:
        return self.curve_over(t, segment.rest() if self.over is None else segment.steps(self.over), segment)

    @final
    @cached_property
    def needs(self) -> frozenset[str]:
        needs = _needs_of_lengths(self)
        return needs | {"total_steps"} if self.over is None else needs


def warmup_steps(schedule: Schedule, total_steps: int | None = None, steps_per_epoch: int | None = None) -> int:
    """The steps of the warmup that a schedule starts with, also where it is scaled, clamped or goes on as another.

    0 without a warmup. Raises `LengthError` when its unit needs a size that is None.

    >>> from groupwise.schedules import cosine
    >>> warmup_steps(cosine(1.0, warmup="5%").scaled(2.0), total_steps=200)
    10
    """
    while not isinstance(schedule, Shape):
        if not schedule.parts:
            return 0
        if isinstance(schedule, Then):
            total_steps = (
                schedule.at_.resolve(total_steps, steps_per_epoch) if isinstance(schedule.at_, Length) else None
            )
        schedule = schedule.parts[0]
    warmup = schedule.warmup
    return 0 if not isinstance(warmup, Length) else warmup.resolve(total_steps, steps_per_epoch)


def progress(t: float, n: float) -> float:
    """How much of `n` steps has passed at `t`, from 0 to 1; a piece of no length starts at 0 and is over after it."""
    if t <= 0:
        return 0.0
    return t / n if t < n else 1.0


def _lengths(value: object) -> Iterator[Length]:
    if isinstance(value, Length):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _lengths(item)


def _needs_of_lengths(shape: Shape) -> frozenset[str]:
    values = [getattr(shape, field.name) for field in arguments.signature(type(shape)).values()]
    return frozenset().union(*(span.needs for value in values for span in _lengths(value)))
