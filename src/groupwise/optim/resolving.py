"""A plan on a torch model: the cascade, then the classes' own checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

import torch

from groupwise._shards import is_sharded
from groupwise._spelling import shown
from groupwise.errors import ResolutionError, listed
from groupwise.look import Example, parameters_of
from groupwise.optim.algorithms import TorchAlgorithms
from groupwise.optim.apart import set_apart
from groupwise.optim.extra import check_read
from groupwise.optim.measured_checks import check_measured
from groupwise.optim.parts_check import check_parts
from groupwise.optim.probe import ProbeResult, probe
from groupwise.plan import Plan, Resolution
from groupwise.plan.mistakes import Mistakes
from groupwise.select import ParameterInfo

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor] | tuple[ParameterInfo, ...]"


def infos_of(model: Model, example: Example | None = None) -> tuple[ParameterInfo, ...]:
    """The parameters of a model, as an example shows them if there is one; infos as they are.

    Raises `ResolutionError` for an example beside infos, and what `parameters_of` raises.
    """
    if not isinstance(model, tuple) or not all(isinstance(info, ParameterInfo) for info in model):
        return parameters_of(cast("torch.nn.Module", model), example=example)
    if example is not None:
        raise ResolutionError("example= is for a model, and these are infos: parameters_of(model, example=…) takes it")
    return model


def resolve(model: Model, plan: Plan, example: Example | None = None) -> Resolution:
    """What `plan` means for `model`, checked as `GroupedOptimizer` would check it, without building anything.

    Args:
        model: a module (on `meta` too), a mapping of names to modules or parameters, or what `parameters_of` returned.
        plan: the plan.
        example: what the model is run on, to see roles and depth in place of guessing them, as for `parameters_of`.

    Raises:
        PlanError, ResolutionError, OptimizerError: a law of the cascade is broken, or a class refuses its values, or a
            sharded parameter is to have sparse gradients.
    """
    if not isinstance(plan, Plan):
        raise ResolutionError(f"a plan is Plan([Rule(…), …]), not {shown(plan)}; Plan.load(path) reads a file")
    return resolve_with(infos_of(model, example), plan, TorchAlgorithms(plan))[0]


def resolve_with(model: Model, plan: Plan, algorithms: TorchAlgorithms) -> tuple[Resolution, dict[str, ProbeResult]]:
    """`resolve`, with the probe result of each group that has an algorithm."""
    infos = infos_of(model)
    _check_distinct(infos)
    resolution = plan.resolve(infos, algorithms)
    for info in infos:
        if info.sparse and is_sharded(info.parameter):
            raise ResolutionError(
                f"{info.name!r} is in parts over several ranks, and its gradient is to be sparse: no part of a tensor "
                "has sparse gradients. Make it with sparse=False and a dense algorithm, or keep it whole with "
                "fully_shard(…, ignored_params={…}) and reduce its gradient yourself"
            )
    mistakes = Mistakes()
    _check_trainable(resolution, mistakes)
    probed = probe(resolution, algorithms, mistakes)
    check_parts(resolution, algorithms, probed, mistakes)
    check_measured(resolution, algorithms, probed, mistakes)
    probed, remarks = set_apart(resolution, algorithms, probed, mistakes)
    remarks += check_read(resolution, algorithms, {name: result.asked for name, result in probed.items()}, mistakes)
    mistakes.raise_all()
    return replace(resolution, remarks=(*resolution.remarks, *remarks)) if remarks else resolution, probed


def _check_distinct(infos: Sequence[ParameterInfo]) -> None:
    """Raise `ResolutionError` for a tensor or a name that stands twice, as where the infos of two walks are joined."""
    tensors = Counter(id(info.parameter) for info in infos if info.parameter is not None)
    names = Counter(info.name for info in infos)
    twice = [info.name for info in infos if tensors[id(info.parameter)] > 1 or names[info.name] > 1]
    if twice:
        raise ResolutionError(
            f"{listed(map(repr, dict.fromkeys(twice)), 3)}: given twice, as a tensor or as a name; walk all of the "
            "model at once, parameters_of(model), or several networks as a mapping, parameters_of({name: module})"
        )


def _check_trainable(resolution: Resolution, mistakes: Mistakes) -> None:
    """Collect a `ResolutionError` for what the plan would train, now or later, and that has no gradient."""
    for group in resolution.groups:
        timeline = group.timeline
        if timeline is None or timeline.never:
            continue
        for info in group.parameters:
            dtype = info.parameter.dtype
            if not dtype.is_floating_point and not dtype.is_complex:
                kind, whose = str(dtype).removeprefix("torch."), resolution.declaring_rules(group, "trainable")
                with mistakes.collecting(info.name):
                    raise ResolutionError(
                        f"{info.name!r} is {kind} and cannot be trained, but {whose} says "
                        f"trainable = {timeline if timeline.moves else True}: leave it out there"
                    )
