"""One optimizer step:  python benchmarks/step.py

(a) The same groups (layer-wise decay, norms and biases without weight decay), all under AdamW: a plan beside plain
    AdamW on the groups of `torch_groups()`, with torch's default kernel for a CPU (a loop over tensors) and fused.
(b) Two algorithms: a plan beside the hand-written list of AdamW and SGD, with the same kernels.

The floor is what the update has to move: AdamW reads p, g, m, v and writes p, m, v (28 bytes a parameter), SGD with
momentum reads p, g, b and writes p, b (20 bytes), at the best speed of `p += g` on the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import FLOAT, Timing, Work, milliseconds, race, say, speed, table, threads_from_arguments
from models import SIZES, copies, described
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, layer_decay
from groupwise.select import role

LR, DECAY, MOMENTUM = 1e-4, 0.05, 0.9
LOOP = {"fused": False, "foreach": False}


def one_algorithm(**kernel: bool) -> Plan:
    """AdamW everywhere, in many groups."""
    return Plan(
        [
            Rule("*", optimizer="AdamW", lr=LR, weight_decay=DECAY, **kernel),
            Rule("*", lr=layer_decay(0.8)),
            Rule(role("norm", "bias"), weight_decay=0.0),
        ]
    )


def two_algorithms(**kernel: bool) -> Plan:
    """AdamW, and SGD with momentum for the backbone's weights."""
    return Plan(
        [
            Rule("*", optimizer="AdamW", lr=LR, weight_decay=DECAY),
            Rule("backbone" & role("weight"), optimizer="SGD", lr=LR, momentum=MOMENTUM, weight_decay=DECAY),
            *([Rule("*", **kernel)] if kernel else []),
        ]
    )


def plain_groups(model: nn.Module, **kernel: bool) -> torch.optim.Optimizer:
    """Plain AdamW on the groups of the plan."""
    groups = GroupedOptimizer(model, one_algorithm()).resolution.torch_groups()
    return torch.optim.AdamW(groups, **kernel)


def by_hand(model: nn.Module, **kernel: bool) -> Work:
    """The list of two plain optimizers on the slices of the plan."""
    slices: dict[str, list[torch.Tensor]] = {"AdamW": [], "SGD": []}
    for group in GroupedOptimizer(model, two_algorithms()).resolution.torch_groups():
        slices[group["algorithm"]] += group["params"]
    optimizers = [
        torch.optim.AdamW(slices["AdamW"], lr=LR, weight_decay=DECAY, **kernel),
        torch.optim.SGD(slices["SGD"], lr=LR, momentum=MOMENTUM, weight_decay=DECAY, **kernel),
    ]
    return lambda: [optimizer.step() for optimizer in optimizers]


def floor_of(plan: Plan, model: nn.Module) -> float:
    """Seconds that moving the bytes of one step takes."""
    moved = {"AdamW": 7 * FLOAT, "SGD": 5 * FLOAT}
    groups = GroupedOptimizer(model, plan).resolution.groups
    return sum(group.numel * moved[str(group.algorithm)] for group in groups) / speed(model)


def contestants(
    build: Callable[[], nn.Module], plan: Callable[..., Plan], plain: Callable[..., Work]
) -> dict[str, Work]:
    """Torch and ours, by the loop and fused, each on a model of its own."""
    models = copies(build(), 4)
    return {
        "torch, loop": plain(models[0], **LOOP),
        "groupwise, loop": GroupedOptimizer(models[1], plan(**LOOP)).step,
        "torch, fused": plain(models[2], fused=True),
        "groupwise": GroupedOptimizer(models[3], plan()).step,
    }


def row(name: str, model: nn.Module, results: dict[str, Timing], looped: Timing, floor: float) -> list[str]:
    """One size: times, and ratios of ours to torch's with the same kernel."""
    fused = results["groupwise"]
    times = [milliseconds(results[key].seconds) for key in ("torch, loop", "torch, fused", "groupwise")]
    return [f"{name}, {described(model)}", milliseconds(floor), *times, f"{fused.ratio:.2f}", f"{looped.ratio:.2f}"]


def compare(title: str, plan: Callable[..., Plan], plain: Callable[..., Work]) -> None:
    """Race every size and print the table."""
    rows = []
    for name, build in SIZES.items():
        works = contestants(build, plan, plain)
        fused = race({key: works[key] for key in ("torch, fused", "groupwise")}, "torch, fused", 2.0)
        looped = race({key: works[key] for key in ("torch, loop", "groupwise, loop")}, "torch, loop", 2.0)
        model = build()
        floor = floor_of(plan(), model)
        rows.append(row(name, model, {**fused, **looped}, looped["groupwise, loop"], floor))
    columns = ["parameters", "floor", "torch, loop", "torch, fused", "groupwise", "ours / fused", "loop / loop"]
    table(title, columns, rows)


def main() -> None:
    """Both tables."""
    threads = threads_from_arguments(__doc__)
    say(f"torch {torch.__version__}, {threads} thread(s)")
    compare("(a) AdamW alone, many groups", one_algorithm, lambda model, **kernel: plain_groups(model, **kernel).step)
    compare("(b) AdamW and SGD", two_algorithms, by_hand)


if __name__ == "__main__":
    main()
