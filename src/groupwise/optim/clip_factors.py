"""From the norms of gradients to what each gradient is multiplied by.

With N the joint norm of a set of gradients and c its bound, f = min(1, c / (N + 1e-6)), as in
`torch.nn.utils.clip_grad_norm_`. On a CPU this is done in Python's own numbers, where a call of torch on a few numbers
would take longer than all of them; elsewhere in tensors, so that nothing waits for the device, and so in what
`torch.compile` traces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple, TypeAlias

import torch

from groupwise import _torch
from groupwise.optim.clip_arrangement import Arrangement, Level

Numbers: TypeAlias = Sequence[float] | torch.Tensor
"""Some numbers, on the host or on a device, shape [n]."""

_EPS = 1e-6


class Found(NamedTuple):
    """Joint norms before clipping, by key, and what each set is multiplied by."""

    keys: Sequence[str]
    norms: Numbers
    factors: Numbers


class Factors(NamedTuple):
    """What every cell is multiplied by, and what was found at each level."""

    of_cells: Numbers
    found: list[Found]


def factors_of(arranged: Arrangement, cells: Numbers) -> Factors:
    """What is to be multiplied, from the norms of the cells. A level sees what the one before it leaves."""
    found: list[Found] = []
    factors: Numbers | None = None
    for level in arranged.levels():
        joint = joint_norms(cells if factors is None else _product(cells, factors), level.sets)
        own = _bounded(level.bounds, joint)
        found.append(Found(level.keys, joint, own))
        spread = _spread(level, own)
        factors = spread if factors is None else _product(factors, spread)
    return Factors([1.0] * len(cells) if factors is None else factors, found)


def joint_norms(norms: Numbers, sets: Sequence[Sequence[int]]) -> Numbers:
    """The norm of each set, from those of its parts, by their places. Sets are disjoint, not empty, and in order."""
    if len(sets) == len(norms):  # a part each, in order
        return norms
    if not isinstance(norms, torch.Tensor):
        return [_norm([norms[i] for i in own]) for own in sets]
    parts = torch.split(torch.stack([norms[i] for own in sets for i in own]), [len(own) for own in sets])
    return torch.stack([*_torch.norms(parts, None)])


def _norm(parts: Sequence[float]) -> float:
    """Not `math.hypot`, which has infinity where there is a nan as well."""
    return parts[0] if len(parts) == 1 else math.sqrt(sum(map(mul, parts, parts)))


def _bounded(bounds: Sequence[float], norms: Numbers) -> Numbers:
    if not isinstance(norms, torch.Tensor):
        shares = [bound / (norm + _EPS) for bound, norm in zip(bounds, norms, strict=True)]
        return [1.0 if share >= 1.0 else share for share in shares]  # a nan stays one
    if len({*bounds}) == 1:
        return torch.clamp(bounds[0] / (norms + _EPS), max=1.0)
    each = [bound / (norm + _EPS) for bound, norm in zip(bounds, norms.unbind(), strict=True)]
    return torch.clamp(torch.stack(each), max=1.0)


def _product(some: Numbers, others: Numbers) -> Numbers:
    if isinstance(some, torch.Tensor) and isinstance(others, torch.Tensor):
        return some * others
    return [*map(mul, some, others)]


def _spread(level: Level, factors: Numbers) -> Numbers:
    """The factor of every cell; 1 for those in no set."""
    if level.of_cell == [*range(len(factors))]:
        return factors
    if not isinstance(factors, torch.Tensor):
        known = [*factors, 1.0]
        return [known[i] for i in level.of_cell]
    behind = torch.cat([factors, factors.new_ones(1)])
    return torch.stack([behind[i] for i in level.of_cell])
