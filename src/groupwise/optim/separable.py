"""Whether an algorithm's step on a tensor is its steps on the tensor's parts.

It is for SGD, Adam and all that treat entry by entry; it is not for Muon, Adafactor, LAMB, Prodigy, which look at rows,
norms or everything at once. Nobody declares it, so it is tried out: a small tensor is stepped a few times, whole and
in parts, each part by an engine of its own, as ranks would. A class that refuses the parts is taken for inseparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from groupwise.optim.borrowed import unhooked_step
from groupwise.optim.extra import construct
from groupwise.optim.probe import Refusal, make_ready

_STEPS = 4


def separable(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], rank: int) -> bool:
    """Whether `cls`, built with `values`, may step the parts of a tensor of that rank apart from one another."""
    values = {**values, "lr": 0.1}  # a tiny one would hide the difference
    weight = torch.sin(torch.arange(4.0**rank, dtype=torch.float64) + 1).reshape((4,) * rank)
    whole, parts = torch.nn.Parameter(weight.clone()), [torch.nn.Parameter(part.clone()) for part in _parts(weight)]
    with torch.no_grad(), Refusal() as probe_result:
        kept, *others = [_run(cls, values, tensor) for tensor in (whole, *parts)]
    if probe_result.refused or any(other != kept for other in others):
        return False
    moved = (whole - weight).abs().max()
    return bool(max((a - b).abs().max() for a, b in zip(_parts(whole), parts, strict=True)) <= 1e-9 * moved)


def _parts(t: torch.Tensor) -> list[torch.Tensor]:
    """The corners of a tensor: halves along each of its dimensions."""
    parts = [t]
    for dim in range(t.ndim):
        parts = [half for part in parts for half in part.chunk(2, dim)]
    return parts


def _run(cls: type[torch.optim.Optimizer], values: Mapping[str, Any], tensor: torch.nn.Parameter) -> dict[str, Any]:
    """Take some steps; return what the class keeps in its group (Prodigy a rate that it finds for all parameters)."""
    engine = construct(cls, [tensor], values)
    make_ready(engine)
    for step in range(_STEPS):
        tensor.grad = torch.cos(tensor) + step
        unhooked_step(engine)
    return {key: value for key, value in engine.param_groups[0].items() if isinstance(value, int | float)}
