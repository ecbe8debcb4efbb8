"""Clipping:  python -m benchmarks --only clip

The gradients of a ViT-S (22 million numbers in 150 tensors), clipped by the scopes of a plan and by hand with
`torch.nn.utils.clip_grad_norm_`, once per scope. The floor is one reading for the norm and one reading and writing for
the multiplication (12 bytes a number), however many scopes overlap. Clipping writes in place, so each call gets fresh
gradients beforehand, off the clock; the last column has the factors of the last call, or their range.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.measure import FLOAT, Scale, Table, Work, milliseconds, race, speed
from benchmarks.models import copies, fresh_gradients, numel, vit_size
from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.optim.clipping import Clipper

BASE = Rule("*", optimizer="SGD", lr=0.1)
THREE = [Rule("*", clip=clip_norm(1.0)), Rule("backbone.*", clip=clip_norm(1.0)), Rule("head", clip=clip_norm(0.1))]
PLANS = {
    "one scope": Plan([BASE], clip=clip_norm(1.0)),
    "three scopes": Plan([BASE, *THREE]),
    "three scopes, then one over everything": Plan([BASE, *THREE], clip=clip_norm(2.0)),
    "one norm per tensor": Plan([BASE, Rule("*", clip=clip_norm(1.0, per="parameter"))]),
}


def ours(model: nn.Module, plan: Plan, factors: list[torch.Tensor]) -> Work:
    """What `step` does before the update; it leaves its factors in `factors`."""
    optimizer = GroupedOptimizer(model, plan)
    clipper = Clipper(optimizer.resolution)

    def clip() -> None:
        clipped = clipper.clip(optimizer.param_groups)
        factors[:] = [factor for found in clipped.found for factor in found.factors]

    return clip


def by_hand(model: nn.Module, plan: Plan) -> Work:
    """One call per scope, on lists that are made beforehand."""
    scopes: dict[object, tuple[list[torch.Tensor], float]] = {}
    for group in GroupedOptimizer(model, plan).resolution.groups:
        for info in group.parameters:
            if group.clip is not None:
                key = info.name if group.clip.clip.per == "parameter" else group.clip
                scopes.setdefault(key, ([], group.clip.clip.bound))[0].append(info.parameter)
    calls = list(scopes.values())
    if plan.clip is not None:
        calls.append((list(model.parameters()), plan.clip.bound))
    return lambda: [clip_grad_norm_(parameters, bound) for parameters, bound in calls]


def tables(scale: Scale) -> Iterator[Table]:
    """Race every kind of plan."""
    model = vit_size(64 if scale.quick else 384)
    floor, rows = milliseconds(3 * FLOAT * numel(model) / speed(model)), []
    for name, plan in PLANS.items():
        one, other = copies(model, 2)
        factors: list[torch.Tensor] = []
        works = {"torch": by_hand(one, plan), "groupwise": ours(other, plan, factors)}
        before = {"torch": fresh_gradients(one), "groupwise": fresh_gradients(other)}
        results = race(works, "torch", scale.seconds(2.0), before=before)
        times = [milliseconds(results[who].seconds) for who in ("torch", "groupwise")]
        ratio = f"{results['groupwise'].ratio:.2f} ± {results['groupwise'].spread:.2f}"
        found = sorted(float(factor) for factor in factors)
        shown = (
            ", ".join(f"{factor:.2g}" for factor in found if len(found) <= 4) or f"{found[0]:.2g} to {found[-1]:.2g}"
        )
        rows.append([name, floor, *times, ratio, shown])
    yield Table("Clipping", ["scopes", "floor", "clip_grad_norm_", "groupwise", "ours / torch", "factors"], rows)
