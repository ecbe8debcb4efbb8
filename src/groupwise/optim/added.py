"""Groups that somebody adds to a running optimizer, as on any torch optimizer.

They stand outside the plan: its rules were resolved without them. So none may take the name of a planned group, whose
schedule and clip go by name, or of a parameter that is held already: its state could not be told from the other's. A
tensor that has left the model gives its name up to the one that stands there now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from groupwise.errors import OptimizerError, listed, unknown
from groupwise.optim.live import names_of
from groupwise.optim.origin import Origin
from groupwise.optim.runtime import Runtime
from groupwise.plan import Resolution

_WALK = "optimizer.regroup(model=model) puts all of the model under the plan"


def completed(
    given: Mapping[str, Any], runtime: Runtime, present: Sequence[Mapping[str, Any]], origin: Origin
) -> dict[str, Any]:
    """`given` as a live group: named, with an algorithm, and with every hyperparameter that the algorithm reads.

    A group that names no algorithm takes the default route; values that it does not give are those of the first group
    under its algorithm. Bare tensors go by the model's names for them, or by `<group>.<position>`.

    Raises:
        OptimizerError: an unknown algorithm, one under another key, or the name of another group or parameter.
    """
    if not isinstance(given, dict):
        raise TypeError(f"param_group must be a dict, but got {type(given)}")
    if "optimizer" in given and "algorithm" not in given:
        raise OptimizerError(f"a group names its algorithm under 'algorithm', as 'algorithm': {given['optimizer']!r}")
    used = {str(group.algorithm) for group in runtime.resolution.groups if group.algorithm is not None}
    algorithm = given.get("algorithm", runtime.route)
    if algorithm not in used:
        raise OptimizerError(unknown("algorithm", str(algorithm), sorted(used)))
    name = _name(given.get("name"), {group.get("name") for group in present}, runtime.resolution)
    if "params" not in given:
        raise OptimizerError("a group has its parameters under 'params': {'params': module.parameters(), 'lr': 1e-3}")
    params = given["params"]
    params = [params] if isinstance(params, torch.Tensor) else params
    if not isinstance(params, set):  # the base class refuses sets, whose order is no order
        params = list(params)
        if "param_names" not in given and not any(isinstance(p, tuple) for p in params):
            params = _named(name, params, present, origin)
        _check_names(params, given.get("param_names"), present, origin)
    ours = {"name": name, "algorithm": algorithm, "network": "", "frozen": False, "declared": {}}
    return {**runtime.routed(algorithm), **ours, **given, "params": params}


def rename_replaced(groups: Sequence[dict[str, Any]]) -> None:
    """Let the last group have its names alone: what else goes by one has left the model, and a name is for one."""
    taken = set(names_of(groups[-1]))
    for group in groups[:-1]:
        if not taken.isdisjoint(names_of(group)):
            group["param_names"] = [f"{n} (replaced)" if n in taken else n for n in names_of(group)]


def standing_outside(group: Mapping[str, Any], resolution: Resolution) -> str:
    """What a group that was added misses of the plan, as a sentence with the way out; empty if that is nothing."""
    known = {name for info in resolution.parameters for name in info.names}
    repeated = [name for name in group["param_names"] if name in known]
    clips = any(planned.clip is not None for planned in resolution.groups)
    if not repeated and not clips and not resolution.scheduled:
        return ""
    lr = f"; its lr stays {group['lr']}" if "lr" in group and not isinstance(group["lr"], torch.Tensor) else ""
    return (
        f"group {group['name']!r} ({listed(group['param_names'], 3)}) stands outside the plan: no rule applies to "
        f"it, so no schedule, clip or freezing of a rule reaches it{lr}. If it is a part of the model, {_WALK}"
    )


def _name(given: object, taken: set[Any], resolution: Resolution) -> str:
    if not given:
        return next(name for name in (f"added{i}" for i in range(len(taken) + 1)) if name not in taken)
    planned = {group.name for group in resolution.groups}
    if given in taken | planned:
        whose = "the plan's, whose schedule and clip would take hold of it" if given in planned else "an added one"
        raise OptimizerError(
            f"there is a group {given!r} already, {whose}: leave the name out, or give another; {_WALK}"
        )
    return str(given)


def _named(
    name: str, params: Sequence[Any], present: Sequence[Mapping[str, Any]], origin: Origin
) -> list[tuple[str, Any]]:
    """Bare tensors with names: the model's where they are free, since a resume finds them by these."""
    held = {own for own, p in _held(present) if not origin.is_gone(p)}
    free = {id(info.parameter): info.name for info in origin.infos() if info.name not in held}
    return [(free.get(id(p), f"{name}.{i}"), p) for i, p in enumerate(params)]


def _check_names(
    params: Sequence[Any], names: Sequence[str] | None, present: Sequence[Mapping[str, Any]], origin: Origin
) -> None:
    """Raise `OptimizerError` if a name stands twice, or is another tensor's that has not left the model."""
    pairs = [pair for pair in params if isinstance(pair, tuple) and len(pair) == 2]
    given = list(zip(names, params, strict=False)) if names is not None else pairs
    wanted = dict(given)
    held = {own: p for own, p in _held(present) if own in wanted and p is not wanted[own]}
    twice = [own for own, p in given if p is not wanted[own]]
    for own in twice or [own for own, p in held.items() if not origin.is_gone(p)]:
        raise OptimizerError(
            f"a parameter {own!r} is held already, and it is another tensor. If the model has changed (a new head, an "
            f"adapter), {_WALK}; else give it another name"
        )


def _held(present: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for group in present:
        yield from zip(names_of(group), group["params"], strict=True)
