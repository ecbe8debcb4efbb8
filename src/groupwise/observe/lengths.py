"""How long the run is meant to be, as a scheduler or the caller gives it."""

from __future__ import annotations

from typing import Any, NamedTuple

from groupwise.errors import RecordError


class Lengths(NamedTuple):
    """Updates in the whole run, and in an epoch; None where unknown."""

    total_steps: int | None = None
    steps_per_epoch: int | None = None


def lengths_of(scheduler: Any, total_steps: int | None) -> Lengths:
    """The lengths that a `PlanScheduler` was given, or a scheduler's own `total_steps`, or the caller's number.

    Raises:
        RecordError: the number is not a positive whole one, the scheduler has none, or the two differ.
    """
    if total_steps is not None and (type(total_steps) is not int or total_steps < 1):
        raise RecordError(f"total_steps={total_steps!r}: it has to be a positive whole number of updates")
    if scheduler is None:
        return Lengths(total_steps)
    name = type(scheduler).__name__
    info = getattr(scheduler, "step_info", None)
    stated = Lengths(*info[1:3]) if isinstance(info, tuple) else Lengths(getattr(scheduler, "total_steps", None))
    if stated.total_steps is None and total_steps is None and not isinstance(info, tuple):
        raise RecordError(f"scheduler: {name} does not say how many updates the run has: give total_steps=… instead")
    if total_steps is not None and stated.total_steps not in (None, total_steps):
        raise RecordError(f"total_steps={total_steps}, and {name} has {stated.total_steps}: give one of them")
    return stated._replace(total_steps=stated.total_steps or total_steps)
