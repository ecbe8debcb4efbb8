"""What the length of a run says about a plan before the run, checked as the matches of its rules are.

    warmup       longer than the run: the peak is never reached
    second part  `a.then(b, at=…)` where b begins when the run is over
    frozen       a part that is unfrozen when the run is over
    zero         a learning rate that is 0 for the last part of the run, so that nothing moves

Each is a sentence with its numbers and the way out. A last update at 0 is a matter of rounding; more are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from groupwise.errors import listed
from groupwise.plan.group import Group
from groupwise.plan.resolution import Resolution
from groupwise.plan.setting import ScalarSetting
from groupwise.schedules import Then
from groupwise.schedules.schedule import later_parts
from groupwise.schedules.shape import warmup_steps

_LENGTH = "the length of the whole run"


def time_checks(resolution: Resolution, total_steps: int | None, steps_per_epoch: int | None = None) -> tuple[str, ...]:
    """What cannot be meant in a run of `total_steps` updates, as sentences; none if that is not known.

    Raises `LengthError` where something counts in epochs and `steps_per_epoch` is None.
    """
    if total_steps is None:
        return ()
    checks = (_unfinished_warmup, _late_parts, _never_unfrozen, _zero_at_the_end)
    return tuple(said for check in checks if (said := check(resolution, total_steps, steps_per_epoch)))


def _rates(resolution: Resolution) -> Iterator[tuple[Group, ScalarSetting]]:
    """Every group whose learning rate is scheduled."""
    for group in resolution.groups:
        setting = group.settings.get("lr")
        if isinstance(setting, ScalarSetting) and setting.schedules:
            yield group, setting


def _unfinished_warmup(resolution: Resolution, total: int, per_epoch: int | None) -> str:
    found: dict[str, tuple[int, object, object]] = {}
    for group, setting in _rates(resolution):
        longest = max(warmup_steps(schedule, total, per_epoch) for schedule in setting.schedules)
        if longest > total:
            found[group.name] = longest, setting.at(total - 1, total, per_epoch), setting.peak
    if not found:
        return ""
    name, (longest, last, peak) = next(iter(found.items()))
    return (
        f"the warmup of the lr of {listed(found, 3)} takes {longest} updates, and the run has total_steps={total}: "
        f"the lr of {name!r} ends at {last:.3g} and never reaches {peak:.3g}. Shorten the warmup, or give {_LENGTH}"
    )


def _late_parts(resolution: Resolution, total: int, per_epoch: int | None) -> str:
    found: dict[Then, tuple[int, str]] = {}
    for group in resolution.groups:
        for key, setting in group.settings.items():
            for schedule in setting.schedules:
                for begins, part in later_parts(schedule, total, per_epoch):
                    if begins >= total:
                        found.setdefault(part, (begins, f"the {key} of {group.name!r}"))
    for name, value in resolution.values.items():
        late = ((begins, part) for begins, part in later_parts(value, total, per_epoch) if begins >= total)
        for begins, part in late:
            found.setdefault(part, (begins, f"the value {name!r}"))
    if not found:
        return ""
    part, (begins, whose) = next(iter(found.items()))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"{part.pair[1]}, the second part of {whose}{more}, begins at update {begins}, and the run has "
        f"total_steps={total}: it never begins. Let it begin earlier, or give {_LENGTH}"
    )


def _never_unfrozen(resolution: Resolution, total: int, per_epoch: int | None) -> str:
    moving = [group for group in resolution.groups if group.timeline is not None and group.timeline.moves]
    never = [g for g in moving if not any(g.trainable_at(step, total, per_epoch) for step in (0, total - 1))]
    if not never:
        return ""
    first = never[0]
    return (
        f"{listed((group.name for group in never), 3)} never trains: {first.name!r} is unfrozen {first.timeline}, and "
        f"the run has total_steps={total}. Unfreeze it earlier, give {_LENGTH}, or declare trainable=False"
    )


def _zero_at_the_end(resolution: Resolution, total: int, per_epoch: int | None) -> str:
    known: dict[ScalarSetting, int] = {}
    zero: dict[str, int] = {}
    for group, setting in _rates(resolution):
        course = setting.unscaled
        if course not in known:
            known[course] = _zero_from(course, total, per_epoch)
        trains = group.timeline is None or group.trainable_at(total - 1, total, per_epoch)
        if trains and 0 < known[course] < total - math.ceil(total / 100):
            zero[group.name] = known[course]
    if not zero:
        return ""
    return (
        f"the lr of {listed(zero, 3)} is 0 from update {min(zero.values())} on, and the run has total_steps={total}: "
        "nothing moves there for the rest. Let the schedule last longer, or shorten the run"
    )


def _zero_from(setting: ScalarSetting, total: int, per_epoch: int | None) -> int:
    """The update from which the value is 0 to the end of the run, looked for in ever finer steps; `total` if none."""

    def is_zero(step: int) -> bool:
        return setting.at(step, total, per_epoch) == 0

    if not is_zero(total - 1):
        return total
    width = 1
    while width < total and is_zero(max(0, total - 1 - width)):
        width *= 2
    low, high = max(-1, total - 1 - width), total - 1
    if low < 0 and is_zero(0):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_zero(middle) else (middle, high)
    return high
