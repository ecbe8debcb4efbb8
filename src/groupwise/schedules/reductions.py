"""Reduce when a metric stops improving: the one policy with a memory, kept pure by keeping the memory outside.

A `plateau` is an immutable schedule like any other; its `at` is the value before any reduction. What it has seen is a
`PlateauState`, plain numbers, which whoever receives the metric holds:

    state = p.initial                        before the first metric
    state = p.observe(state, metric)         after each one
    s = reduced(schedule, {p: state})        what `schedule` is now: an ordinary schedule

`reduced` reaches a plateau wherever it stands, so it may be scaled, clamped, warmed up or one side of a `then`, and
groups whose plateaus are equal share one state, as they should: they see the same metric. The rules and the numbers
are those of torch's `ReduceLROnPlateau`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, SupportsFloat, final

from groupwise import _pickling
from groupwise._spelling import shown
from groupwise.errors import ScheduleError, StateError, listed, within
from groupwise.schedules.arguments import Count, NonNegative, Number, numbers
from groupwise.schedules.names_elsewhere import explained_arguments
from groupwise.schedules.numbers import number
from groupwise.schedules.schedule import Schedule
from groupwise.schedules.segment import Segment
from groupwise.schedules.shape import EndlessCurve


@_pickling.public("groupwise.schedules:PlateauState")
@final
@dataclass(frozen=True)
class PlateauState:
    """What a plateau remembers: its `value` now, the `best` metric (None before the first that counts), how many
    metrics in a row were no better (`bad`), and how many more to ignore (`cooldown`)."""

    value: float
    best: float | None = None
    bad: int = 0
    cooldown: int = 0

    def to_dict(self) -> dict[str, float | int | None]:
        """The state as plain data, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, object]) -> PlateauState:
        """The state that `to_dict` wrote. Raises `StateError` for anything else."""
        if set(data) != set(_READERS):
            raise StateError(f"a plateau's state has {listed(_READERS)}; this one has {listed(map(str, data))}")
        try:
            return PlateauState(**{name: read(data[name]) for name, read in _READERS.items()})
        except ScheduleError as error:
            raise StateError(f"a plateau's state: {error}") from None


def _best(value: object) -> float | None:
    return value if value is None or value in (math.inf, -math.inf) else number(value)


_COUNT = numbers(least=0, whole=True).read
_READERS: Mapping[str, Callable[[object], Any]] = {"value": number, "best": _best, "bad": _COUNT, "cooldown": _COUNT}


@_pickling.public("groupwise.schedules:plateau")
@explained_arguments
@final
@dataclass(frozen=True, repr=False)
class Plateau(EndlessCurve):
    """`start`, multiplied by `factor` after more than `patience` metrics in a row without improvement.

    The metric comes from `PlanScheduler.observe(metric)`, once per evaluation.

    Args:
        start: the value before any reduction.
        factor: what a reduction multiplies by, at least 0 and below 1.
        patience: how many metrics in a row may bring no improvement.
        threshold: an improvement beats the best metric by more than this.
        threshold_mode: whether the threshold is relative to the best metric ("rel") or absolute ("abs").
        mode: whether a smaller ("min") or a larger ("max") metric is better.
        cooldown: how many metrics after a reduction are not counted.
        floor: the value never falls below it (min_lr).
        eps: a reduction by no more than this is left undone.
        warmup: a length before the curve, over which the value rises in equal steps to the first value.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau` (its name in parentheses).

    >>> policy = plateau(1.0, factor=0.5, patience=1)
    >>> state = policy.initial
    >>> for metric in (3.0, 3.0, 3.0):
    ...     state = policy.observe(state, metric)
    >>> state.value
    0.5
    """

    start: Number
    factor: NonNegative = 0.1
    patience: Count = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    mode: Literal["min", "max"] = "min"
    cooldown: Count = 0
    floor: Number = 0.0
    eps: NonNegative = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor >= 1:
            raise ScheduleError(f"{self.kind}: factor: {self.factor:g} does not reduce; it must be below 1")

    def curve(self, t: int, segment: Segment) -> float:
        return self.start

    @property
    def key_values(self) -> tuple[float, ...]:
        return (self.start,)

    @property
    def initial(self) -> PlateauState:
        """The state before the first metric."""
        return PlateauState(self.start)

    def observe(self, state: PlateauState, metric: SupportsFloat) -> PlateauState:
        """The state after one more `metric`, a number or a 0-dim tensor; nan counts as no improvement."""
        current = _metric(metric)
        if self._improves(current, state.best):
            best: float | None = current
            bad = 0
        else:
            best, bad = state.best, state.bad + 1
        if state.cooldown > 0:
            return PlateauState(state.value, best, 0, state.cooldown - 1)
        if bad > self.patience:
            return PlateauState(self._reduced(state.value), best, 0, self.cooldown)
        return PlateauState(state.value, best, bad, 0)

    def reduced(self, state: PlateauState) -> Plateau:
        """This plateau as it stands at `state`: the same policy, starting from the reduced value."""
        return replace(self, start=state.value)

    def carried(self, state: PlateauState, before: Plateau) -> PlateauState:
        """The state that `before` had reached, for this plateau in its place: an edit in mid-run.

        Reductions, count and best metric stay. Another `start` moves the value in proportion, a higher `floor` lifts
        it, and where the other direction is better the best metric is forgotten.

        >>> policy = plateau(1.0, factor=0.1)
        >>> plateau(0.5, factor=0.5).carried(PlateauState(0.01, best=2.0, bad=3), policy).value
        0.005
        """
        edited = before.start not in (self.start, 0.0)
        value = state.value * self.start / before.start if edited else state.value
        value = max(value, min(self.floor, self.start)) if self.floor > before.floor else value
        return PlateauState(value) if self.mode != before.mode else replace(state, value=value)

    def _improves(self, current: float, best: float | None) -> bool:
        towards = 1 if self.mode == "max" else -1
        if best is None:
            best = -towards * math.inf
        if self.threshold_mode == "rel":
            return towards * current > towards * best * (1 + towards * self.threshold)
        return towards * current > towards * best + self.threshold

    def _reduced(self, value: float) -> float:
        lower = max(value * self.factor, self.floor)
        return lower if value - lower > self.eps else value


def plateaus(schedule: Schedule) -> tuple[Plateau, ...]:
    """The distinct plateaus inside `schedule`, from left to right."""
    if isinstance(schedule, Plateau):
        return (schedule,)
    return tuple(dict.fromkeys(found for part in schedule.parts for found in plateaus(part)))


def reduced(schedule: Schedule, states: Mapping[Plateau, PlateauState]) -> Schedule:
    """`schedule` with each plateau that has a state in `states` as it stands there."""
    if isinstance(schedule, Plateau):
        return schedule.reduced(states[schedule]) if schedule in states else schedule
    return schedule.with_parts([reduced(part, states) for part in schedule.parts])


def _metric(metric: SupportsFloat) -> float:
    if isinstance(metric, bool | str):
        raise ScheduleError(f"metric: {shown(metric)} is not a number")
    with within("metric"):
        try:
            return float(metric)
        except (TypeError, ValueError, OverflowError):
            raise ScheduleError(f"{shown(metric)} is not a single number") from None
