"""Groups that somebody adds to a running optimizer, as on any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from groupwise.errors import OptimizerError, unknown
from groupwise.optim.runtime import Runtime


def completed(given: Mapping[str, Any], runtime: Runtime, present: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`given` as a live group: named, with an algorithm, and with every hyperparameter that the algorithm reads.

    A group that names no algorithm takes the default route; values that it does not give are those of the first group
    under its algorithm. Bare tensors are named `<group>.<position>`. Raises `OptimizerError` for an unknown algorithm.
    """
    if not isinstance(given, dict):
        raise TypeError(f"param_group must be a dict, but got {type(given)}")
    used = {str(group.algorithm) for group in runtime.resolution.groups if group.algorithm is not None}
    algorithm = given.get("algorithm", runtime.route)
    if algorithm not in used:
        raise OptimizerError(unknown("algorithm", str(algorithm), sorted(used)))
    name = given.get("name") or _free_name({group.get("name") for group in present})
    params = given["params"]
    params = [params] if isinstance(params, torch.Tensor) else params
    if not isinstance(params, set):  # the base class refuses sets, whose order is no order
        params = list(params)
        if "param_names" not in given and not any(isinstance(p, tuple) for p in params):
            params = [(f"{name}.{i}", p) for i, p in enumerate(params)]
    ours = {"name": name, "algorithm": algorithm, "network": "", "frozen": False, "declared": {}}
    return {**runtime.routed(algorithm), **ours, **given, "params": params}


def _free_name(taken: set[Any]) -> str:
    return next(name for name in (f"added{i}" for i in range(len(taken) + 1)) if name not in taken)
