"""Live group dicts: what `optimizer.param_groups` holds.

Plain data only, so that a `weights_only` load takes it: the parameters and their names by position, the group's name,
its algorithm as a string, its network, whether it is frozen now, every hyperparameter that the class keeps in a group,
and `declared`, what the plan said, as text: a checkpoint carries it along, so that a later load can tell an edited plan
from an unchanged one. Where a rate follows measurements, `rate_factor` is what they made of it in the last step, of no
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import torch

from groupwise.optim.probe import OURS, RATE_FACTOR, ProbeResult
from groupwise.plan import Group, ScalarSetting, Setting, TupleSetting

StepInfo: TypeAlias = tuple[int, int | None, int | None]
"""An update, the total number of updates, and the updates per epoch."""

_TIMES: Final = " × "

START: Final[StepInfo] = (0, 1_000_000_000, 1_000_000_000)
"""The first update while lengths are not known: whatever does not happen at once lies ahead."""


def live_group(group: Group, probe_result: ProbeResult, step_info: StepInfo = START) -> dict[str, Any]:
    """The dict of a group that the plan made, its hyperparameters at their peak, frozen or not as of `step_info`."""
    return {
        "params": [info.parameter for info in group.parameters],
        "param_names": [info.name for info in group.parameters],
        "name": group.name,
        "algorithm": group.algorithm,
        "network": group.network,
        "frozen": group.timeline is not None and not group.trainable_at(*step_info),
        "declared": {name: spelled(setting) for name, setting in group.settings.items()},
        **probe_result.hyperparameters,
        **({RATE_FACTOR: torch.ones(())} if any(setting.measured for setting in group.settings.values()) else {}),
    }


def names_of(group: Mapping[str, Any]) -> list[str]:
    """The names of a live group's parameters, one for each.

    A trainer may put other tensors in their place (ZeRO one flat shard): those are called `<group>.<position>`.
    """
    names, count = group.get("param_names", ()), len(group["params"])
    return list(names) if len(names) == count else [f"{group.get('name', 'group')}.{i}" for i in range(count)]


def hyperparameters(group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a live group, with whatever else an engine or a scheduler keeps there."""
    return {name: value for name, value in group.items() if name not in OURS}


def declared_number(text: object) -> float | None:
    """The constant that a declaration in `declared` stands for; None for a schedule, a tuple or any other text."""
    try:
        return math.prod(float(term) for term in str(text).split(_TIMES))
    except ValueError:
        return None


def spelled(setting: Setting) -> str:
    """A setting as text that is equal only for equal settings: the table's form would round."""
    if isinstance(setting, TupleSetting):
        return ", ".join(map(spelled, setting.elements))
    terms = (
        [setting.base, *(factor.by for factor in setting.factors if factor.measured is None)]
        if isinstance(setting, ScalarSetting)
        else [setting]
    )
    return _TIMES.join(map(repr, terms))
