"""What a program's schedulers really write, found by running copies of them: the schedules that were read are held
against it, since schedulers of torch compose in ways that their attributes do not show.

Copies step an optimizer that stands in for the program's, with its groups and no parameters. Nothing of the program
changes.
"""

from __future__ import annotations

import copy
import functools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch.optim import lr_scheduler as torch_schedulers

from groupwise._spelling import number
from groupwise.adopt.curves import UnknownSchedule
from groupwise.errors import ScheduleError
from groupwise.schedules import Schedule

_WORK: Final = 200_000
"""So many values are written at most, which bounds how far a rehearsal goes where groups are many."""
_BEYOND: Final = 10
_TOLERANCE: Final = 1e-6
_LENGTHS: Final = ("T_max", "total_iters", "total_steps", "total_size", "step_size")


class Rehearsal:
    """The values of every group of an optimizer at each step from now on; run when first asked for."""

    def __init__(self, schedulers: Sequence[Any], groups: Sequence[Mapping[str, Any]]) -> None:
        self._schedulers, self._groups = schedulers, groups

    @functools.cached_property
    def _courses(self) -> list[list[dict[str, float]]]:
        most = max(_WORK // max(len(self._groups), 1), _BEYOND)
        begun = max(getattr(each, "last_epoch", 0) for each in self._schedulers)
        count = min(sum(map(_length, self._schedulers)) + _BEYOND, *map(_end, self._schedulers), most) - begun
        try:
            return list(_courses(self._schedulers, self._groups, max(count, 1)))
        except Exception as error:  # of the program's own schedulers, whatever it is
            raise UnknownSchedule(f"a copy of it does not step: {type(error).__name__}: {error}") from error

    def check(self, group: int, schedules: Mapping[str, Schedule]) -> None:
        """Hold schedules of "lr", "momentum" or "beta1" against what becomes of the group at that position.

        Raises `UnknownSchedule` where they differ, and where the schedulers cannot be copied or do not step.
        """
        if any(map(_is_by_metric, self._schedulers)):
            return
        begun = max(getattr(each, "last_epoch", 0) for each in self._schedulers)
        for key in ("lr", "momentum", "beta1"):
            written = [at[group][key] for at in self._courses if key in at[group]]
            if not written or (key not in schedules and max(written) == min(written)):
                continue
            largest = max(map(abs, written))
            for step, value in enumerate(written, start=begun):
                ours = _value(schedules[key], step) if key in schedules else written[0]
                if abs(ours - value) > _TOLERANCE * largest:
                    raise UnknownSchedule(
                        f"it brings {key} to {number(value, 6)} at step {step}, and what was read of it to "
                        f"{number(ours, 6)}"
                    )


def _value(schedule: Schedule, step: int) -> float:
    try:
        return schedule.at(step, None, 1)  # an epoch of one step, so both units are counted alike
    except ScheduleError:
        return float("inf")


def _courses(
    schedulers: Sequence[Any], groups: Sequence[Mapping[str, Any]], count: int
) -> Iterator[list[dict[str, float]]]:
    stand_in = torch.optim.SGD([torch.zeros(())], lr=0.0)
    stand_in.param_groups = [{**group, "params": []} for group in groups]
    owners = [owner for each in schedulers for owner in _optimizers(each)]
    copies = copy.deepcopy(list(schedulers), {id(owner): stand_in for owner in owners})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the order of steps: there are none
        for i in range(count):
            for each in copies if i else ():
                each.step()
            yield [_values(group) for group in stand_in.param_groups]


def _values(group: Mapping[str, Any]) -> dict[str, float]:
    held = {key: float(group[key]) for key in ("lr", "momentum") if key in group}
    return held | ({"beta1": float(group["betas"][0])} if "betas" in group else {})


def _optimizers(scheduler: Any) -> list[Any]:
    own = [vars(scheduler)[key] for key in ("optimizer", "_optimizer") if key in vars(scheduler)]
    return own + [owner for part in getattr(scheduler, "_schedulers", ()) for owner in _optimizers(part)]


def _length(scheduler: Any) -> int:
    """After how many steps a scheduler has shown what it does."""
    held = vars(scheduler)
    found = [int(held[key]) for key in _LENGTHS if isinstance(held.get(key), int | float)]
    found += [*held.get("milestones", ()), *held.get("_milestones", ()), 3 * held.get("T_0", 0)]
    inner = [_length(part) for part in held.get("_schedulers", ())]
    return max(found, default=0) + sum(inner)


def _end(scheduler: Any) -> int:
    """How many values a scheduler has before it refuses to step, as OneCycleLR does, or turns back, as a cosine."""
    held = vars(scheduler)
    if parts := held.get("_schedulers"):
        return held["_milestones"][-1] + _end(parts[-1]) if "_milestones" in held else min(map(_end, parts))
    if isinstance(scheduler, torch_schedulers.OneCycleLR):
        return int(scheduler.total_steps)
    return int(scheduler.T_max) + 1 if isinstance(scheduler, torch_schedulers.CosineAnnealingLR) else sys.maxsize


def _is_by_metric(scheduler: Any) -> bool:
    """Whether a scheduler steps by a metric, so that nothing can be rehearsed."""
    parts = getattr(scheduler, "_schedulers", ())
    return isinstance(scheduler, torch_schedulers.ReduceLROnPlateau) or any(map(_is_by_metric, parts))
