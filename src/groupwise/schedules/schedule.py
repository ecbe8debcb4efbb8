"""A schedule is an immutable value whose `at` is a pure function of the step.

Nothing advances on its own, so a schedule can be previewed, jumped to, resumed from one integer, compared and written
to a file.
Schedules form a small algebra, closed under three operations:

    a.then(b, at=n)     a for the first n steps; then b, whose clock starts at 0
    s.scaled(x)         x times s, at every step; x is a number or another schedule
    s.clamped(low, high)

`then` cuts the run into segments, and each side sees its own: for `a` the run is n steps long, for `b` it is what is
left. A percent is a hundredth of the segment's `total_steps`, so `"50%"` inside `b` is half of b's own time. The torch
twin of `then` is `SequentialLR`; `scaled` by a schedule is what `ChainedScheduler` is for factors.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar, Final, Never, TypeAlias, final

from groupwise._spelling import number_from_text, shown
from groupwise.errors import LengthError, ScheduleError, listed
from groupwise.schedules import arguments
from groupwise.schedules.arguments import Kind, Number, Span
from groupwise.schedules.expression import Expression
from groupwise.schedules.lengths import Length, length, listed_needs
from groupwise.schedules.numbers import number, number_form
from groupwise.schedules.segment import Segment

DEEPEST = 32  # levels of then, scaled and clamped; a longer chain is a piecewise or a multi_step


@dataclass(frozen=True, repr=False)
class Schedule(Expression):
    """A value over time: of a hyperparameter, a task's weight, or anything else that is a number."""

    kind: ClassVar[str]
    """The public name, also the key in a file: `cosine`, `step_decay`, `then`."""

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self) -> None:
        arguments.read(self, self.kind)

    def _is_no_number(self, other: object) -> Never:
        raise ScheduleError(
            f"{self} is a value over time and no number, so there is no arithmetic with it: write the number that you "
            "mean into it, or multiply it in a rule of its own, lr=scale(0.1)"
        )

    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__ = __radd__ = __sub__ = __rsub__ = __pow__ = _is_no_number

    def __neg__(self) -> Never:
        self._is_no_number(-1)

    def __call__(self, *step: object) -> Never:
        at = listed(map(shown, step)) or "step"
        raise ScheduleError(f"{self} is a value and no function: at an update it is {self}.at({at}, total_steps=…)")

    @final
    def at(self, step: int, total_steps: int | None = None, steps_per_epoch: int | None = None) -> float:
        """The value for the update number `step`, the first being 0. Past `total_steps` the last value holds.

        Raises `LengthError` when a size in `needs` is None (at every step, not only where it would matter), and
        `ScheduleError` for a negative step or a value that is not finite.
        """
        self._check(step, total_steps, steps_per_epoch)
        if total_steps is not None and step > total_steps:
            step = total_steps
        value = float(self.value_in(step, Segment(total_steps, steps_per_epoch)))
        if not math.isfinite(value):
            raise ScheduleError(f"{self} is {value} at step {step}: not a finite number")
        return value

    @abstractmethod
    def value_in(self, step: int, segment: Segment) -> float:
        """The value at `step` of `segment`, unchecked: what `at` and the combinators build on."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """What `at` cannot do without: any of "total_steps" and "steps_per_epoch"."""

    @property
    @abstractmethod
    def key_values(self) -> tuple[float, ...]:
        """The start, the turning points and the end of the schedule, as far as they are known without lengths.

        A warmup does not count: it starts where its length says. Neither does what grows or shrinks with the run.
        """

    @property
    @abstractmethod
    def parts(self) -> tuple[Schedule, ...]:
        """The schedules that this one is directly made of; none for a shape."""

    @abstractmethod
    def with_parts(self, parts: Sequence[Schedule]) -> Schedule:
        """The same combination of other parts."""

    @final
    @property
    def highest(self) -> float:
        """The largest key value: what a parameter group holds until a scheduler is attached."""
        return max(self.key_values)

    @final
    @cached_property
    def depth(self) -> int:
        """How many combinators lie between this schedule and its deepest shape."""
        return 1 + max(part.depth for part in self.parts) if self.parts else 0

    @final
    def then(self, other: Schedule, *, at: Length | str) -> Schedule:
        """This schedule for the length `at`, then `other` from its own step 0 (torch's `SequentialLR`).

        Both see their own segment: to this one the run is `at` long, to `other` it is what is left, and percentages
        inside either are of that segment.
        """
        return Then((self, other), at=at)

    @final
    def scaled(self, by: float | Schedule) -> Schedule:
        """This schedule times a number or times another schedule, step by step."""
        return Scaled(self, by)

    @final
    def clamped(self, low: float | None = None, high: float | None = None) -> Schedule:
        """This schedule, never below `low` and never above `high`."""
        return Clamped(self, low, high)

    def _check(self, step: int, total_steps: int | None, steps_per_epoch: int | None) -> None:
        try:
            below = step < 0 or (total_steps is not None and total_steps < 0)
        except (TypeError, RuntimeError) as error:  # a tensor of several numbers is neither below nor above
            given = f"{shown(step)} and {shown(total_steps)}"
            raise ScheduleError(f"{self}: a step and total_steps are whole numbers, not {given}") from error
        if below:
            raise ScheduleError(f"{self}: neither a step ({step}) nor total_steps ({total_steps}) is below zero")
        sizes = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        missing = frozenset(name for name in self.needs if sizes[name] is None)
        if missing:
            raise LengthError(f"{self} needs {listed_needs(missing)}")


def _schedule(value: object) -> Schedule:
    if not isinstance(value, Schedule):
        raise ScheduleError(f"{shown(value)} is not a schedule")
    if value.depth >= DEEPEST:
        raise ScheduleError(f"more than {DEEPEST} schedules inside one another; write a piecewise or a multi_step")
    return value


def _pair(value: object) -> tuple[Schedule, ...]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ScheduleError(f"{shown(value)} is not a pair of schedules")
    return tuple(_schedule(item) for item in value)


def _factor(value: object) -> float | Schedule:
    return _schedule(value) if isinstance(value, Schedule) else number(value)


SCHEDULE_FORM: Final = {"$ref": "#/definitions/schedule"}
"""A schedule inside a table of a file, as JSON Schema."""

_PAIR_FORM: Final = {"type": "array", "items": SCHEDULE_FORM, "minItems": 2, "maxItems": 2}
_FACTOR_FORM: Final = {"anyOf": [number_form(), SCHEDULE_FORM]}

Inner: TypeAlias = Annotated[Schedule, Kind(_schedule, form=SCHEDULE_FORM)]
Pair: TypeAlias = Annotated[tuple[Schedule, Schedule], Kind(_pair, form=_PAIR_FORM)]
Factor: TypeAlias = Annotated[float | Schedule, Kind(_factor, number_from_text, _FACTOR_FORM)]


@final
@dataclass(frozen=True, repr=False, init=False)
class Then(Schedule):
    """One schedule after another: `pair[0]` for the length `at`, then `pair[1]` with its own clock and segment."""

    pair: Pair
    at_: Span

    def __init__(self, pair: Sequence[Schedule], *, at: Length | str) -> None:
        arguments.store(self, {"pair": pair, "at_": at})
        self.__post_init__()

    def value_in(self, step: int, segment: Segment) -> float:
        first, second = self.pair
        n = segment.steps(self.at_)
        if step < n:
            return first.value_in(step, Segment(n, segment.steps_per_epoch))
        return second.value_in(step - n, segment.after(n))

    @cached_property
    def needs(self) -> frozenset[str]:
        first, second = self.pair
        return (first.needs - {"total_steps"}) | second.needs | length(self.at_).needs

    @property
    def key_values(self) -> tuple[float, ...]:
        return self.pair[0].key_values + self.pair[1].key_values

    @property
    def parts(self) -> tuple[Schedule, ...]:
        return self.pair

    def with_parts(self, parts: Sequence[Schedule]) -> Then:
        return Then(parts, at=self.at_)

    def expression(self, write: Callable[[object], str]) -> str:
        first, second = self.pair
        return f"{first.expression(write)}.then({second.expression(write)}, at={write(self.at_)})"


def later_parts(
    schedule: Schedule, total_steps: int | None = None, steps_per_epoch: int | None = None
) -> Iterator[tuple[int, Then]]:
    """Every `then` in a schedule, with the step of the run at which its second part begins.

    Raises `LengthError` when its unit needs a size that is None.
    """
    yield from _later_parts(schedule, Segment(total_steps, steps_per_epoch), 0)


def _later_parts(schedule: Schedule, segment: Segment, begins: int) -> Iterator[tuple[int, Then]]:
    if not isinstance(schedule, Then):
        for part in schedule.parts:
            yield from _later_parts(part, segment, begins)
        return
    n, (first, second) = segment.steps(schedule.at_), schedule.pair
    yield begins + n, schedule
    yield from _later_parts(first, Segment(n, segment.steps_per_epoch), begins)
    yield from _later_parts(second, segment.after(n), begins + n)


@final
@dataclass(frozen=True, repr=False)
class Scaled(Schedule):
    """`schedule` times `by`, a number or a schedule over the same segment."""

    schedule: Inner
    by: Factor

    def value_in(self, step: int, segment: Segment) -> float:
        by = self.by.value_in(step, segment) if isinstance(self.by, Schedule) else self.by
        return self.schedule.value_in(step, segment) * by

    @cached_property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(part.needs for part in self.parts))

    @property
    def key_values(self) -> tuple[float, ...]:
        """Of a product of two schedules: start, bounds and end, since their turning points need not coincide."""
        ours = self.schedule.key_values
        if not isinstance(self.by, Schedule):
            return tuple(value * self.by for value in ours)
        theirs = self.by.key_values
        corners = [a * b for a in (min(ours), max(ours)) for b in (min(theirs), max(theirs))]
        return ours[0] * theirs[0], max(corners), min(corners), ours[-1] * theirs[-1]

    @property
    def parts(self) -> tuple[Schedule, ...]:
        return (self.schedule, self.by) if isinstance(self.by, Schedule) else (self.schedule,)

    def with_parts(self, parts: Sequence[Schedule]) -> Scaled:
        return Scaled(parts[0], parts[1] if isinstance(self.by, Schedule) else self.by)

    def expression(self, write: Callable[[object], str]) -> str:
        return f"{self.schedule.expression(write)}.scaled({write(self.by)})"


@final
@dataclass(frozen=True, repr=False)
class Clamped(Schedule):
    """`schedule` held within [low, high]; at least one is given. Raises `ScheduleError` if low > high."""

    schedule: Inner
    low: Number | None = None
    high: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is None and self.high is None:
            raise ScheduleError(f"{self.kind}: neither low nor high is given")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ScheduleError(f"{self.kind}: low ({self.low:g}) is above high ({self.high:g})")

    def value_in(self, step: int, segment: Segment) -> float:
        return self._within(self.schedule.value_in(step, segment))

    @property
    def needs(self) -> frozenset[str]:
        return self.schedule.needs

    @property
    def key_values(self) -> tuple[float, ...]:
        return tuple(self._within(value) for value in self.schedule.key_values)

    @property
    def parts(self) -> tuple[Schedule, ...]:
        return (self.schedule,)

    def with_parts(self, parts: Sequence[Schedule]) -> Clamped:
        return replace(self, schedule=parts[0])

    def expression(self, write: Callable[[object], str]) -> str:
        bounds = [f"{name}={write(x)}" for name, x in (("low", self.low), ("high", self.high)) if x is not None]
        return f"{self.schedule.expression(write)}.clamped({', '.join(bounds)})"

    def _within(self, value: float) -> float:
        if self.low is not None and value < self.low:
            return self.low
        return self.high if self.high is not None and value > self.high else value
