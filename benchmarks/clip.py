"""Clipping:  python benchmarks/clip.py

The gradients of a ViT-S (22 million numbers in 150 tensors), clipped by the scopes of a plan and by hand with
`torch.nn.utils.clip_grad_norm_`, once per scope. The floor is one reading for the norm and one reading and writing for
the multiplication (12 bytes a number), however many scopes overlap.
"""

from __future__ import annotations

import torch
from measure import FLOAT, Work, milliseconds, race, say, speed, table, threads_from_arguments
from models import copies, numel, vit_small_size
from torch import nn
from torch.nn.utils import clip_grad_norm_

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


def ours(model: nn.Module, plan: Plan) -> Work:
    """What `step` does before the update."""
    optimizer = GroupedOptimizer(model, plan)
    clipper = Clipper(optimizer.resolution)
    return lambda: clipper.clip(optimizer.param_groups)


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


def main() -> None:
    """Race every kind of plan."""
    threads = threads_from_arguments(__doc__)
    say(f"torch {torch.__version__}, {threads} thread(s)")
    floor, rows = milliseconds(3 * FLOAT * numel(vit_small_size()) / speed(vit_small_size())), []
    for name, plan in PLANS.items():
        one, other = copies(vit_small_size(), 2)
        results = race({"torch": by_hand(one, plan), "groupwise": ours(other, plan)}, "torch", 2.0)
        times = [milliseconds(results[who].seconds) for who in ("torch", "groupwise")]
        rows.append([name, floor, *times, f"{results['groupwise'].ratio:.2f}"])
    table("Clipping", ["scopes", "floor", "clip_grad_norm_", "groupwise", "ours / torch"], rows)


if __name__ == "__main__":
    main()
