"""Moving parameters between the groups of a running optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from groupwise.errors import OptimizerError
from groupwise.optim.saved import Saved, SavedParameter
from groupwise.plan import Resolution
from groupwise.select import ParameterInfo


def current(resolution: Resolution, groups: Sequence[Mapping[str, Any]]) -> tuple[ParameterInfo, ...]:
    """What the plan was resolved on, in the model's order, with the tensors that the groups hold now.

    Trainers that shard swap parameters for others; statistics must be those of the current ones.
    """
    live = {name: p for group in groups for name, p in zip(group["param_names"], group["params"], strict=True)}
    infos = {info.name: info for info in resolution.parameters}
    return tuple(replace(infos[name], parameter=live.get(name, infos[name].parameter)) for name in resolution.resolved)


def snapshot(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]) -> Saved:
    """The running state by name, in the normal form of a checkpoint; nothing is copied."""
    parameters = {}
    for group in groups:
        values = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for name, p in zip(group["param_names"], group["params"], strict=True):
            parameters[name] = SavedParameter(state.get(p) or None, values)
    return Saved(parameters, {key: value for key, value in state.items() if not isinstance(key, torch.Tensor)})


def check_foreign_schedulers(optimizer: torch.optim.Optimizer, count: int, attached: bool) -> None:
    """Raise `OptimizerError` if a torch scheduler counts on a number of groups that is about to change."""
    foreign = getattr(optimizer.step, "_wrapped_by_lr_sched", False) and not attached
    if foreign and count != len(optimizer.param_groups):
        raise OptimizerError(
            f"regroup would turn {len(optimizer.param_groups)} groups into {count}, but a torch scheduler is attached, "
            "which writes them by position: put the schedule into the plan and attach a PlanScheduler, "
            "which goes by name"
        )
