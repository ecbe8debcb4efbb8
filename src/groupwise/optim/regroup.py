"""Regrouping a running optimizer: the plan is resolved again, and everything that is held finds its new place.

Two things may have changed: the plan, or the model. Either way the running state is brought into the normal form of a
checkpoint, by the names that the parameters have now, and laid out as a checkpoint would be. Groups that somebody added
stay as they are, except for what a rule of the plan has come to match. Nothing is changed here: what is returned is put
in place by the optimizer, at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch

from groupwise.errors import OptimizerError, listed
from groupwise.optim.live import StepInfo, names_of
from groupwise.optim.load_report import LoadReport
from groupwise.optim.matching import held_parameters, matched
from groupwise.optim.plan_values import Driver
from groupwise.optim.rates import RateEdit, sentences
from groupwise.optim.rows import RowsGiven
from groupwise.optim.runtime import Runtime
from groupwise.optim.transfer import transfer
from groupwise.plan import Plan, Resolution
from groupwise.select import ParameterInfo

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Running:
    """What an optimizer runs with now."""

    resolution: Resolution
    groups: Sequence[dict[str, Any]]
    state: Mapping[Any, Any]
    step_info: StepInfo
    driver: Driver = "none"


@dataclass(frozen=True)
class Regrouped:
    """What it is to run with: nothing of it is shared with what runs but tensors and state.

    `renamed` are added groups whose name the plan has taken, and the names that they have instead; `edits` are rates
    that were under way; `overlooked` says that roles and depth were read from a forward before and are guessed now.
    """

    runtime: Runtime
    groups: Groups
    state: defaultdict[Any, Any]
    report: LoadReport
    renamed: Mapping[str, str]
    edits: Sequence[RateEdit]
    overlooked: bool = False

    @property
    def messages(self) -> list[str]:
        """What may be a mistake, in sentences."""
        report, said = self.report, []
        if report.restarted:
            said.append(f"regroup: the algorithm changed, so state starts afresh: {report}")
        if report.reset:
            said.append(
                f"regroup: the shape of {listed(report.reset, 3)} has changed, and state cannot follow: it starts "
                f"afresh. If only the number of rows changed, rows={{{report.reset[0]!r}: …}} says which is which"
            )
        if report.new and report.lost and not (report.found or report.stateless or report.restarted or report.reset):
            said.append(f"regroup: no parameter was known before, so this may be another model: {report}")
        if self.overlooked:
            said.append(
                "regroup: roles and depth were seen in a forward before, and are guessed from names now: give example="
            )
        for name, now in self.renamed.items():
            said.append(
                f"regroup: the plan has a group {name!r}, so the one of that name that was added is {now!r} now"
            )
        return [*said, *sentences(self.edits)]


def regrouped(
    now: Running, plan: Plan, infos: tuple[ParameterInfo, ...] | None, rows: Mapping[str, RowsGiven]
) -> Regrouped:  # fmt: skip
    """The groups and the state of `plan` on a model's parameters; on those that are held, if that is None.

    Raises what resolving raises, and `OptimizerError` for groups that cannot be told apart or rows that do not fit.
    """
    infos = _as_without_plan(current(now) if infos is None else infos, now)
    runtime = Runtime.of(infos, plan)
    groups = runtime.live_groups(now.step_info)
    placed = {id(p) for group in groups for p in group["params"]}
    held = held_parameters(now.resolution, now.groups, now.state)
    extra_state = {key: value for key, value in now.state.items() if not isinstance(key, torch.Tensor)}
    saved, outside = matched(infos, held, placed, rows, extra_state)
    added = _added(now, outside)
    renamed = _renamed([group["name"] for group in groups], [group["name"] for group in added])
    groups += [group | {"name": renamed.get(group["name"], group["name"])} for group in added]
    moved = transfer(saved, groups, runtime.plan_values(driver=now.driver), runtime.fresh_state)
    params = [p for group in groups for p in group["params"]]
    state = defaultdict(dict, {**moved.extra_state, **{params[i]: own for i, own in moved.state.items()}})
    overlooked = _is_seen(now.resolution.parameters) and not _is_seen(infos)
    moving = [dict(group) for group in moved.groups]
    return Regrouped(runtime, moving, state, moved.report, renamed, moved.edits, overlooked)


def _is_seen(infos: Sequence[ParameterInfo]) -> bool:
    return any(info.basis is not None for info in infos)


def current(now: Running) -> tuple[ParameterInfo, ...]:
    """What the plan was resolved on, in the model's order, with the tensors that the groups hold now.

    Trainers that shard swap parameters for others; statistics must be those of the current ones. Raises
    `OptimizerError` if it is not certain which tensor is which.
    """
    live: dict[str, torch.Tensor] = {}
    for group in now.groups:
        _check_places(group, now.resolution)
        for name, p in zip(names_of(group), group["params"], strict=True):
            if live.setdefault(name, p) is not p:
                raise OptimizerError(f"{name!r} stands in two groups, each time another tensor; {_WALK}")
    infos = {info.name: info for info in now.resolution.parameters}
    tensors = {name: live.get(name, infos[name].parameter) for name in now.resolution.resolved}
    return tuple(_as_now(infos[name], p) for name, p in tensors.items() if p is not None)  # None: let go of since


def has_torch_scheduler(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scheduler of torch's was ever attached, a `PlanScheduler` included."""
    return bool(getattr(optimizer.step, "_wrapped_by_lr_sched", False))


def check_foreign_schedulers(optimizer: torch.optim.Optimizer, groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise `OptimizerError` if a torch scheduler counts on groups that are about to change their number or place."""
    if not has_torch_scheduler(optimizer):
        return
    before, after = ([group.get("name") for group in each] for each in (optimizer.param_groups, groups))
    moved = [name for i, name in enumerate(before) if name in after and after.index(name) != i]
    if len(before) == len(after) and not moved:
        return
    same = f"regroup would move the groups {listed(map(repr, moved), 3)} to other places"
    change = same if len(before) == len(after) else f"regroup would turn {len(before)} groups into {len(after)}"
    raise OptimizerError(
        f"{change}, but a torch scheduler is attached, which writes them by position: put the schedule into the plan "
        "and attach a PlanScheduler, which goes by name"
    )


_WALK = "call regroup(model=model), which walks the model again"


def _check_places(group: Mapping[str, Any], resolution: Resolution) -> None:
    params, names = len(group["params"]), len(group.get("param_names", ()))
    if params != names and group.get("name") in {planned.name for planned in resolution.groups}:
        raise OptimizerError(
            f"group {group['name']!r} holds {params} tensors and {names} names, so it is not certain which is which: "
            f"somebody has put others in their place. If the model has changed, {_WALK}"
        )


def _as_now(info: ParameterInfo, p: Any) -> ParameterInfo:
    return replace(info, parameter=p, shape=tuple(p.shape), requires_grad=p.requires_grad)


def _as_without_plan(infos: Sequence[ParameterInfo], now: Running) -> tuple[ParameterInfo, ...]:
    """The parameters with `requires_grad` as it would be without the plan: what it froze by itself nobody froze by
    hand, and what somebody trains in a group of their own is none of its business.
    """
    groups = now.resolution.groups
    planned = {group.name for group in groups}
    live = {n: p for group in now.groups for n, p in zip(names_of(group), group["params"], strict=True)}
    outside = {id(p) for group in now.groups if group.get("name") not in planned for p in group["params"]}
    flags = {
        id(tensor): info.requires_grad
        for group in groups
        for info in group.parameters
        if (tensor := live.get(info.name, info.parameter)) is not None
        and (group.timeline is not None or (group.algorithm is None and id(tensor) in outside))
    }
    return tuple(replace(i, requires_grad=flags.get(id(i.parameter), i.requires_grad)) for i in infos)


def _added(now: Running, outside: set[int]) -> Groups:
    """The groups that somebody added, with those of their tensors that no rule of the plan matches."""
    planned = {group.name for group in now.resolution.groups}
    added: Groups = []
    for group in now.groups:
        if group.get("name") not in planned:
            kept = [(n, p) for n, p in zip(names_of(group), group["params"], strict=True) if id(p) in outside]
            outside = outside - {id(p) for _, p in kept}
            if kept or not group["params"]:
                added.append(group | {"params": [p for _, p in kept], "param_names": [n for n, _ in kept]})
    return added


def _renamed(planned: Sequence[str], added: Sequence[str]) -> dict[str, str]:
    """New names for the added groups whose name the plan gives to one of its own."""
    taken, renamed = {*planned, *added}, {}
    for name in added:
        if name in planned:
            free = (own for i in count(1) if (own := f"{name}/added" if i == 1 else f"{name}/added{i}") not in taken)
            renamed[name] = next(free)
            taken.add(renamed[name])
    return renamed
