"""What the length of a run says about its schedules: a warmup that the run does not finish, a run that outlives them.

Each function gives a sentence, or "" where all is well. One update too many is a matter of rounding; more are not.
"""

from __future__ import annotations

import math
from typing import SupportsFloat

from groupwise.errors import listed
from groupwise.optim.scheduled_values import ScheduledValues
from groupwise.schedules.shape import warmup_steps

HEARD_AFTER = 1000
"""Updates in which a plateau should have had its metric, where the length of the run is not known."""


def unfinished_warmup(scheduled_values: ScheduledValues) -> str:
    """Which learning rates never reach their peak, since their warmup is longer than the run."""
    total, per_epoch = scheduled_values.lengths
    if total is None:
        return ""
    found: dict[str, tuple[int, float, float]] = {}
    for group in scheduled_values.resolution.groups:
        setting = group.settings.get("lr")
        schedules = setting.schedules if setting is not None else ()
        longest = max((warmup_steps(schedule, total, per_epoch) for schedule in schedules), default=0)
        if setting is not None and longest > total:
            found[group.name] = longest, _number(setting.at(total - 1, total, per_epoch)), _number(setting.peak)
    if not found:
        return ""
    name, (longest, last, peak) = next(iter(found.items()))
    return (
        f"the warmup of the lr of {listed(found, 3)} takes {longest} updates, and the run has total_steps={total}: "
        f"the lr of {name!r} ends at {last:.3g} and never reaches {peak:.3g}. Shorten the warmup, or give "
        "PlanScheduler the length of the whole run"
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, SupportsFloat) else math.nan


def outlived(scheduled_values: ScheduledValues, update: int) -> str:
    """Whether an update made at position `update`, counted from 0, is past the end of the run."""
    total, per_epoch = scheduled_values.lengths
    if total is None or not scheduled_values.resolution.scheduled or update < total + math.ceil(total / 100):
        return ""
    lrs = {
        group.name: group.settings.get("lr")
        for group in scheduled_values.resolution.groups
        if group.name in scheduled_values.rates
    }
    still = [name for name, lr in lrs.items() if lr is not None and lr.at(update, total, per_epoch) == 0]
    told = f"the run goes on past its end: PlanScheduler was given total_steps={total}"
    if still:
        return f"{told}, and from there on the lr of {listed(still, 3)} is 0, so that nothing moves. {_LENGTH}"
    if update < 1.5 * total:
        return ""
    return f"{told}, half as many updates again were made, and every schedule holds its last value. {_LENGTH}"


_LENGTH = "Give it the length of the whole run, in updates"


def unheard_plateau(scheduled_values: ScheduledValues, update: int) -> str:
    """Whether plateaus have had no metric by now, though half of the run is over."""
    total, _ = scheduled_values.lengths
    if not scheduled_values.states or any(
        state != plateau.initial for plateau, state in scheduled_values.states.items()
    ):
        return ""
    if update < (HEARD_AFTER if total is None else total / 2):
        return ""
    return (
        f"{listed([str(plateau) for plateau in scheduled_values.states], 3)} has had no metric yet, so it stays at its "
        "start: call scheduler.observe(metric) after each evaluation"
    )


def other_length(scheduled_values: ScheduledValues, update: int, before: object) -> str:
    """Whether a checkpoint of a run of `before` updates goes on in one of another length."""
    total, _ = scheduled_values.lengths
    if not isinstance(before, int) or total is None or total == before or not scheduled_values.needs_total_steps:
        return ""
    return (
        f"the checkpoint is of a run with total_steps={before}, this one has total_steps={total}: after {update} "
        f"updates {update / before:.0%} of the way was made there, {update / total:.0%} is made here, and the "
        "schedules go on along this run's course"
    )
