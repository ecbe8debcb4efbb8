"""Whether a class may step the parts of a parameter.

It has to leave in each part what it would leave in a parameter of its own, and keep state that can lie in that of the
whole. Nobody declares it, so it is tried out: two matrices that are parts of one tensor, and the same two apart, take a
few steps each, and must come out equal, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from groupwise._shards import is_sharded, split_dim
from groupwise.errors import ResolutionError
from groupwise.optim.algorithms import TorchAlgorithms, hyperparameters_of
from groupwise.optim.borrowed import Groups, run_on, unhooked_step
from groupwise.optim.extra import construct, values_of
from groupwise.optim.parts import Opened, State
from groupwise.optim.probe import ProbeResult, Refusal, make_ready, trains
from groupwise.optim.separable import separable
from groupwise.plan import Group, Resolution
from groupwise.plan.mistakes import Mistakes
from groupwise.select import Part

_STEPS = 8  # the rectified ones stand still for five


def check_parts(
    resolution: Resolution, algorithms: TorchAlgorithms, probed: Mapping[str, ProbeResult], mistakes: Mistakes
) -> None:
    """Collect a `ResolutionError` for every group whose class cannot step the parts of its parameters."""
    known: dict[object, str] = {}
    for group in resolution.groups:
        if group.algorithm is None or not group.parts or group.name not in probed or not trains(group):
            continue
        cls = algorithms.engine_of(group.algorithm)
        arguments = {*hyperparameters_of(cls), *probed[group.name].extra}
        values = {key: value for key, value in probed[group.name].hyperparameters.items() if key in arguments}
        varying = {name for own in group.parts.values() for part in own for name in part.factors}
        factors = bool(varying)
        for name in sorted(varying & probed[group.name].constructor_only):
            with mistakes.collecting(alike=f"{group.algorithm}: {name}"):
                raise ResolutionError(
                    f"{group.algorithm} keeps {name} on itself and not in its groups, so parts cannot have one of "
                    f"their own, as those of {next(iter(group.parts))!r} are to"
                )
        for rank in dict.fromkeys(len(part.info.shape) for own in group.parts.values() for part in own):
            key = (group.algorithm, repr(values), rank, factors)
            if key not in known:
                known[key] = _reason(cls, values, rank, factors)
            with mistakes.collecting(alike=f"{group.algorithm}: {known[key]}"):
                if known[key]:
                    name = next(iter(group.parts))
                    raise ResolutionError(
                        f"{group.algorithm} cannot step the parts of {name!r} (group {group.name!r}): {known[key]}. "
                        "Give the parameter another algorithm, or leave its parts out"
                    )
        _check_shards(group, cls, values, mistakes)


def _check_shards(
    group: Group, cls: type[torch.optim.Optimizer], values: Mapping[str, Any], mistakes: Mistakes
) -> None:
    """Collect a `ResolutionError` for parts with rates of their own that are cut along the axis of the shards, where
    each rank steps what it holds."""
    for name, own in group.parts.items():
        info = next(info for info in group.parameters if info.name == name)
        if not is_sharded(info.parameter) or not any(part.factors for part in own):
            continue
        axis = own[0].part.axis
        cut = [placed for placed in info.parameter.placements if split_dim(placed) == axis]
        if cut and separable(cls, values, info.ndim):
            with mistakes.collecting(name):
                raise ResolutionError(
                    f"{name!r} is sharded along axis {axis}, along which the plan cuts it into parts with other rates: "
                    "shard it along another dimension (shard_placement_fn of fully_shard), or give its parts one rate"
                )


def _reason(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int, factors: bool) -> str:
    """Why a class cannot step parts of a rank; empty if it can."""
    with torch.no_grad(), Refusal() as tried:
        return _difference(cls, values, rank, factors)
    return tried.reason


def _difference(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int, factors: bool) -> str:
    sizes = (8, *range(5, 4 + rank))  # no two alike, so that a square of one of them has not the matrix's shape
    weight = torch.sin(torch.arange(float(math.prod(sizes))) + 1).reshape(sizes)
    whole = torch.nn.Parameter(weight.clone())
    apart = [torch.nn.Parameter(half.clone()) for half in weight.chunk(2)]
    alone, joint = construct(cls, apart, values), construct(cls, [torch.nn.Parameter(weight.clone())], values)
    makes_state, state = bool(joint.state), dict[Any, Any]()
    for engine in (alone, joint):
        make_ready(engine)
        engine.param_groups = _groups(engine.param_groups[0], apart, factors)
    for step in range(_STEPS):
        whole.grad = torch.cos(whole) + step
        for own, half in zip(apart, whole.grad.chunk(2), strict=True):
            own.grad = half.clone()
        unhooked_step(alone)
        _step_parts(cls, joint, whole, state, makes_state)
    if not torch.equal(torch.cat([own.detach() for own in apart]), whole.detach()):
        return "its step on the parts of a tensor is not that on separate parameters"
    kept, *others = [_kept(group) for group in alone.param_groups]
    differing = [key for other in others for key in other if kept.get(key) != other[key]]
    if differing:
        return f"it keeps {differing[0]!r} in its group, where parts with rates of their own would differ in it"
    return ""


def _groups(group: dict[str, Any], params: Sequence[torch.Tensor], apart: bool) -> Groups:
    """One group of all these parameters, or one for each, the rate of the later ones half that of the first."""
    if not apart:
        return [{**group, "params": list(params)}]
    first, *others = [{**group, "params": [p]} for p in params]
    return [first, *({**other, **({"lr": other["lr"] * 0.5} if "lr" in other else {})} for other in others)]


def _kept(group: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that a class holds in a group, what parts may differ in apart."""
    return {key: v for key, v in group.items() if isinstance(v, int | float) and key not in ("lr", "weight_decay")}


def _step_parts(
    cls: type[torch.optim.Optimizer],
    engine: torch.optim.Optimizer,
    whole: torch.nn.Parameter,
    state: State,
    makes_state: bool,
) -> None:
    """One step of the two halves of a tensor, as parts."""
    sizes, half = tuple(whole.shape), whole.shape[0] // 2
    opened = Opened.of("it", whole, [Part(sizes, "a", 0, 0, half), Part(sizes, "b", 0, half, 2 * half)], state)
    matrices = [matrix for piece in opened.pieces for matrix in piece.weight.matrices]
    split = len(engine.param_groups) > 1
    for i, group in enumerate(engine.param_groups):
        group["params"] = [matrices[i]] if split else matrices
    if makes_state and not state:
        state.update(construct(cls, matrices, values_of(engine.param_groups[0], hyperparameters_of(cls))).state)
    run_on(engine, engine.param_groups, state, unhooked_step)
    state[whole] = opened.closed(state)
