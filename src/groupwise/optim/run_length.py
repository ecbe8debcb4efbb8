"""What the updates that were made say about schedules: a run that outlives them, a plateau without a metric, a resume.

Most functions give a sentence, or "" where all is well. One update too many is a matter of rounding; more are not. What
can be known before the run is in `groupwise.plan.time_checks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from groupwise.errors import listed
from groupwise.optim.scheduled_values import Position, ScheduledValues

METRIC_WITHIN = 1000
"""Updates in which a plateau should have had its metric, where the length of the run is not known."""

AHEAD = 1000
"""Updates to look ahead, where the length of the run is not known."""


def outlived(scheduled_values: ScheduledValues, update: int) -> str:
    """Whether an update made at position `update`, counted from 0, is past the end of the run."""
    total, per_epoch = scheduled_values.lengths
    if total is None or update < total + math.ceil(total / 100) or not scheduled_values.resolution.scheduled:
        return ""
    lrs = {
        group.name: group.settings.get("lr")
        for group in scheduled_values.resolution.groups
        if group.name in scheduled_values.rates
    }
    zero = [name for name, lr in lrs.items() if lr is not None and lr.at(update, total, per_epoch) == 0]
    sentence = f"the run goes on past its end: PlanScheduler was given total_steps={total}"
    if zero:
        return f"{sentence}, and from there on the lr of {listed(zero, 3)} is 0, so that nothing moves. {_LENGTH}"
    if update < 1.5 * total:
        return ""
    return f"{sentence}, half as many updates again were made, and every schedule holds its last value. {_LENGTH}"


_LENGTH = "Give it the length of the whole run, in updates"


def plateau_without_metric(scheduled_values: ScheduledValues, update: int) -> str:
    """Whether plateaus have had no metric by now, though half of the run is over."""
    total, _ = scheduled_values.lengths
    if not scheduled_values.states or any(
        state != plateau.initial for plateau, state in scheduled_values.states.items()
    ):
        return ""
    if update < (METRIC_WITHIN if total is None else total / 2):
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


def foreign_counter(state_dict: Mapping[str, object], update: int) -> str:
    """Whether a loaded state is that of another scheduler, of which the counter alone means something here."""
    others = [name for name in ("base_lrs", "_last_lr") if name in state_dict and "plateaus" not in state_dict]
    if not others:
        return ""
    return (
        f"the scheduler's state is not a PlanScheduler's (it has {listed(others)}): of it only last_epoch={update} was "
        "read, as so many updates. If that scheduler was stepped once an epoch, load {'last_epoch': updates} with the "
        "number of updates that were made"
    )


def still_due(position: Position, without_rates: bool = False) -> list[str]:
    """What a plan has still to do after a position, in words: parts that are unfrozen or frozen, values that move.

    `without_rates` leaves out learning rates, where another scheduler writes them.
    """
    plan = position.scheduled_values
    total, per_epoch = plan.lengths
    end = total if total is not None else position.update + AHEAD
    ahead = sorted({position.update + (end - position.update) * i // 16 for i in range(17)})
    if ahead[0] < position.update or len(ahead) < 2:
        return []
    due = [*_turns(plan, ahead)]
    moving: dict[str, list[str]] = {}
    for group in plan.resolution.groups:
        for key, setting in group.settings.items():
            counts = setting.schedules and not (without_rates and key == "lr")
            if counts and len({str(setting.at(step, total, per_epoch)) for step in ahead}) > 1:
                moving.setdefault(key, []).append(group.name)
    due += [f"{key} of {listed(names, 3)}" for key, names in moving.items()]
    named = plan.resolution.values.items()
    return due + [name for name, each in named if len({each.at(step, total, per_epoch) for step in ahead}) > 1]


def _turns(plan: ScheduledValues, ahead: list[int]) -> Iterator[str]:
    for name, group in plan.moving.items():
        trains = [group.trainable_at(step, *plan.lengths) for step in ahead]
        if len(set(trains)) > 1:
            yield f"{name} is {'frozen' if trains[0] else 'unfrozen'} ({group.timeline})"


def other_rate(position: Position, saved: Mapping[str, Any]) -> str:
    """Whether rates of a checkpoint were those of a later update than the first, which the plan stands at."""
    groups = {group.name: group for group in position.scheduled_values.resolution.groups}
    for name, rate in saved.items():
        now, group = position.rates.get(name), groups.get(name)
        if group is None or "lr" not in group.settings or name not in position.scheduled_values.rates:
            continue
        numbers = [rate, now, group.settings["lr"].peak]
        if any(isinstance(number, torch.Tensor) or not isinstance(number, int | float) for number in numbers):
            continue
        if not any(math.isclose(rate, float(number), rel_tol=1e-9) for number in numbers[1:]):
            return (
                f"the optimizer was loaded from a run in which the lr of {name!r} stood at {rate:.3g}, and "
                f"PlanScheduler stands at update 0, where it is {now:.3g}: every schedule begins anew. If the run is "
                "to go on where it was, load the scheduler's state too: scheduler.load_state_dict(…)"
            )
    return ""
