"""What rates that follow measurements ask of a class and of tensors.

What a step has done is multiplied afterwards, which is a step at another rate only where the class's update is
proportional to the rate and its state knows nothing of it. SGD, Adam, Muon are so; Rprop, ASGD and those that find
their own rate are not. LARS's ratio is of the gradient with its decay, so there the update has to be proportional to
that, which Adam's is not. Nobody declares either, so both are tried out, on a small tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from groupwise import _torch
from groupwise._shards import is_sharded
from groupwise.errors import OptimizerError, ResolutionError
from groupwise.optim.algorithms import TorchAlgorithms, hyperparameters_of
from groupwise.optim.borrowed import unhooked_step
from groupwise.optim.extra import construct
from groupwise.optim.measured_shares import unit
from groupwise.optim.probe import ProbeResult, Refusal, make_ready, trains
from groupwise.plan import GradientShare, Group, MeasuredFactor, Resolution, TrustRatio
from groupwise.plan.declared import factors_of
from groupwise.plan.mistakes import Mistakes

_HALF: Final = (torch.float16, torch.bfloat16)
_STEPS, _NEAR = 3, 1e-9
_KEEP = "keep its weights in float32, as autocast does"


def check_measured(
    resolution: Resolution, algorithms: TorchAlgorithms, probed: Mapping[str, ProbeResult], mistakes: Mistakes
) -> None:
    """Collect a `ResolutionError` for every group whose rate cannot follow what its factors measure."""
    units: dict[GradientShare, dict[str, Group]] = {}
    known: dict[object, bool] = {}
    for group in resolution.groups:
        factors = [f for s in group.settings.values() for f in s.measured if isinstance(f, MeasuredFactor)]
        if not factors or group.name not in probed or not trains(group):
            continue
        with mistakes.collecting(alike=f"{group.name}: {factors[0].kind}"):
            for factor in factors:
                _check_tensors(resolution, group, factor)
                _check_class(resolution, group, factor, algorithms, probed[group.name], known)
        for factor in factors:
            if isinstance(factor, GradientShare):
                live = {"name": group.name, "network": group.network}
                own = units.setdefault(factor, {})
                own.update({unit(factor.per, info.name, live): group for info in group.parameters})
    for factor, own in units.items():
        with mistakes.collecting():
            _check_several(resolution, factor, own)


def check_steppable(group: Mapping[str, Any], of_update: bool, parted: bool) -> None:
    """Raise `OptimizerError`, before a step, for tensors of a live group that cannot be measured."""
    name, names, params = group.get("name"), group.get("param_names", ()), group["params"]
    if len(names) != len(params) or any(_torch.is_flat(p) for p in params):
        raise OptimizerError(
            f"the lr of group {name!r} follows norms of its tensors, and it holds others in their place: what flattens "
            "parameters (ZeRO, FSDP1) leaves none of them. fully_shard (FSDP2) does"
        )
    for own, p in zip(names, params, strict=True):
        if p.grad is not None and p.grad.layout != torch.strided:
            raise OptimizerError(f"{_of(name, own)} has a sparse gradient: {_SPARSE}")
        if of_update and p.dtype in _HALF:
            raise OptimizerError(f"{_of(name, own)} is {_dtype(p)}: {_ROUNDED}; {_KEEP}")
        if parted and is_sharded(p):
            raise OptimizerError(
                f"{_of(name, own)} is taken apart by the plan and sharded, so that no rank has norms of its parts: "
                "leave its parts or the measured factor out"
            )


_SPARSE = "measuring what a step has done would copy the whole table, which a sparse gradient is there to avoid"
_ROUNDED = "what a step has done is read from the weights, which are too coarse for it"


def _of(group: object, name: str) -> str:
    return f"the lr of group {group!r} follows measurements, and {name!r}"


def _dtype(p: torch.Tensor) -> str:
    return str(p.dtype).removeprefix("torch.")


def _check_tensors(resolution: Resolution, group: Group, factor: MeasuredFactor) -> None:
    who = f"{resolution.declaring_rules(group, 'lr')}: {factor}"
    of_gradient = isinstance(factor, TrustRatio) and factor.of == "gradient"
    if of_gradient and group.parts:
        raise ResolutionError(
            f"{who} is of the gradient, and {next(iter(group.parts))!r} is taken apart by the plan: leave its parts "
            "out, or use of='update'"
        )
    for info in group.parameters:
        dtype = info.parameter.dtype
        if info.sparse:
            raise ResolutionError(f"{who}: the gradient of {info.name!r} is sparse: {_SPARSE}")
        if not dtype.is_floating_point:
            raise ResolutionError(f"{who}: {info.name!r} is {_dtype(info.parameter)}, and has no real norm")
        if dtype in _HALF and not of_gradient:
            raise ResolutionError(f"{who}: {info.name!r} is {_dtype(info.parameter)}: {_ROUNDED}; {_KEEP}")


def _check_class(
    resolution: Resolution,
    group: Group,
    factor: MeasuredFactor,
    algorithms: TorchAlgorithms,
    probe_result: ProbeResult,
    known: dict[object, bool],
) -> None:
    cls = algorithms.engine_of(str(group.algorithm))
    arguments = {*hyperparameters_of(cls), *probe_result.extra}
    values = {key: value for key, value in probe_result.hyperparameters.items() if key in arguments}
    of_gradient = isinstance(factor, TrustRatio) and factor.of == "gradient"
    for rank in dict.fromkeys(len(info.shape) for info in group.pieces):
        key = (group.algorithm, repr(values), rank, of_gradient)
        if key not in known:
            known[key] = (follows_gradient if of_gradient else follows_rate)(cls, values, rank)
        if known[key]:
            continue
        who = f"{resolution.declaring_rules(group, 'lr')}: {factor}"
        if of_gradient:
            raise ResolutionError(
                f"{who} multiplies the gradient and its decay, to which the update of {group.algorithm} is not "
                "proportional, as that of SGD is: trust_ratio(…) without of='gradient' is of the update (LAMB)"
            )
        raise ResolutionError(
            f"{who} multiplies an update, and that of {group.algorithm} is not proportional to its lr: give these "
            "parameters another algorithm, or a factor that is no measurement"
        )


def _check_several(resolution: Resolution, factor: GradientShare, units: Mapping[str, Group]) -> None:
    if len(units) > 1:
        return
    ((name, group),) = units.items()
    declaring = [rule for rule in resolution.rules if factor in factors_of(rule)]
    if any(rule.optional for rule in declaring):
        return
    raise ResolutionError(
        f"{resolution.declaring_rules(group, 'lr')}: {factor} does nothing, for it compares {factor.per}s and all that "
        f"has it is one, {name or 'the model'!r}: match several, choose another per=, or say optional=True"
    )


def follows_rate(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int) -> bool:
    """Whether twice the rate is twice the update, and the same state after it."""
    with torch.no_grad(), Refusal():
        (engine, weight), (other, twin) = _engine(cls, values, rank), _engine(cls, values, rank)
        for step in range(_STEPS):
            before = weight.detach().clone()
            weight.grad, twin.grad = torch.cos(weight) + step, torch.cos(weight) + step
            if step == _STEPS - 1:
                other.param_groups[0]["lr"] = 2 * engine.param_groups[0]["lr"]
            unhooked_step(engine)
            unhooked_step(other)
        kept, others = engine.state.get(weight, {}), other.state.get(twin, {})
        same = kept.keys() == others.keys() and all(_is_same(kept[key], others[key]) for key in kept)
        return same and _is_twice(before - weight, before - twin)
    return False  # refused


def follows_gradient(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int) -> bool:
    """Whether twice the gradient with its decay, and no decay, is twice the update at every step."""
    decay = values.get("weight_decay", 0.0)
    without = {**values, "weight_decay": 0.0} if "weight_decay" in values else values
    with torch.no_grad(), Refusal():
        (engine, weight), (other, twin) = _engine(cls, values, rank), _engine(cls, without, rank)
        for step in range(_STEPS):
            before, twin_before = weight.detach().clone(), twin.detach().clone()
            weight.grad = torch.cos(weight) + step
            twin.grad = 2 * (weight.grad + decay * weight)
            unhooked_step(engine)
            unhooked_step(other)
            if not _is_twice(before - weight, twin_before - twin):
                return False
        return True
    return False


def _engine(
    cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int
) -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
    weight = torch.sin(torch.arange(4.0**rank, dtype=torch.float64) + 1).reshape((4,) * rank)
    parameter = torch.nn.Parameter(weight)
    engine = construct(cls, [parameter], {**values, "lr": 0.01})
    make_ready(engine)
    return engine, parameter


def _is_twice(update: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((other - 2 * update).abs().max() <= _NEAR * update.abs().max()) and bool(update.abs().max() > 0)


def _is_same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), rtol=_NEAR, atol=0))
    return a == b
