"""Whether a plan comes to what a program does: the law of adoption, asked of each draft before it is handed out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from groupwise.adopt.program import Program, Target
from groupwise.errors import ScheduleError
from groupwise.optim.algorithms import TorchAlgorithms, hyperparameters_of
from groupwise.optim.resolving import resolve_with
from groupwise.plan import Group, Plan, Setting
from groupwise.schedules import Schedule

_STEPS = (0, 1, 2, 3, 7, 50, 333, 1000, 9999)
_TOLERANCE = 1e-9  # of a schedule times a factor, where the program's own was made with the product


class Comparison(NamedTuple):
    """The first parameter for which a plan says something else than a program does, and what; empty if none. And what
    the plan's reader is warned of.
    """

    difference: str
    cautions: tuple[str, ...]


def compared(plan: Plan, program: Program) -> Comparison:
    """Resolve a plan and compare it. Raises what `resolve` raises."""
    algorithms = TorchAlgorithms(plan)
    resolution, _ = resolve_with(program.infos, plan, algorithms)
    targets = {info.name: target for info, target in zip(program.infos, program.targets, strict=True)}
    for group in resolution.groups:
        for info in group.parameters:
            if said := _difference(group, targets[info.name], algorithms, info.requires_grad):
                return Comparison(f"{info.name}: {said}", resolution.cautions)
    return Comparison("", resolution.cautions)


def _difference(group: Group, target: Target | None, algorithms: TorchAlgorithms, trains: bool) -> str:
    never = group.timeline is not None and group.timeline.never
    if target is None:
        return "" if never or (group.algorithm is None and not trains) else "it has no optimizer in the program"
    if group.algorithm is None or algorithms.class_of(group.algorithm) is not target.algorithm or never:
        return f"it has {group.algorithm}, in the program {target.algorithm.__name__}"
    arguments = hyperparameters_of(target.algorithm)
    wanted: dict[str, Any] = {**target.values, **target.extra}
    for key in dict.fromkeys([*wanted, *group.settings]):
        default = arguments.get(key)
        if not _equal(group.settings.get(key), wanted.get(key, default), default):
            return f"{key} is {group.settings.get(key)}, in the program {wanted.get(key, default)}"
    return ""


def _equal(setting: Setting | None, wanted: Any, default: object) -> bool:
    if setting is None:
        return bool(wanted == default)
    parts = wanted if isinstance(wanted, tuple | list) else (wanted,)
    if not setting.schedules and not any(isinstance(part, Schedule) for part in parts):
        held: Any = setting.peak
        return bool(tuple(held) == tuple(wanted) if isinstance(wanted, tuple | list) else held == wanted)
    return all(_close(_at(setting, step), _at(wanted, step)) for step in _STEPS)


def _at(value: Any, step: int) -> Any:
    """The value at an update; none where a schedule that grows has left the finite numbers."""
    if isinstance(value, tuple):
        return tuple(_at(part, step) for part in value)
    try:
        return value.at(step, 10_000, 100) if isinstance(value, Schedule | Setting) else value
    except ScheduleError:
        return None


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    if one is None or other is None:
        return one is other
    return one == other or math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=1e-300)


def hyperparameters(plan: Plan, program: Program) -> Mapping[str, Mapping[str, Any]]:
    """What each live group of the plan would hold, by the name of a parameter in it."""
    resolution, probed = resolve_with(program.infos, plan, TorchAlgorithms(plan))
    return {
        info.name: probed[group.name].hyperparameters
        for group in resolution.groups
        if group.name in probed
        for info in group.parameters
    }
