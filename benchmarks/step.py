"""One optimizer step:  python -m benchmarks --only step

(a) Everything under AdamW. A plan with layer-wise decay and no weight decay on norms and biases, which makes many
    groups, beside plain AdamW on the same groups (`torch_groups()`) and plain AdamW on one group.
(b) Two algorithms. A plan beside the hand-written list of AdamW and SGD on the same slices.

Each with the fused kernels, which a plan takes by itself where they serve, or because it names them, and with the loop
over tensors that torch takes on a CPU unless it is told otherwise. The floor is what an update has to move: AdamW reads
p, g, m, v and writes p, m, v (28 bytes a parameter), SGD with momentum reads p, g, b and writes p, b (20 bytes), at the
best speed of `p += g` on the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from benchmarks.measure import FLOAT, Scale, Table, Work, milliseconds, race, speed
from benchmarks.models import SIZES, copies, described
from groupwise import GroupedOptimizer, Plan, Rule, layer_decay
from groupwise.select import ndim, role

LR, DECAY, MOMENTUM = 1e-4, 0.05, 0.9
FUSED, LOOP = {"fused": True}, {"fused": False, "foreach": False}
MOVED = {"AdamW": 7 * FLOAT, "SGD": 5 * FLOAT}
OURS, NAMED = "groupwise", "kernel named"

Kernel = Mapping[str, bool]
Builder = Callable[[nn.Module, Kernel], Work]


def one_algorithm(kernel: Kernel) -> Plan:
    """AdamW everywhere, in many groups."""
    return Plan(
        [
            Rule("*", optimizer="AdamW", lr=LR, weight_decay=DECAY, **kernel),
            Rule("*", lr=layer_decay(0.8)),
            Rule(role("norm", "bias"), weight_decay=0.0),
        ]
    )


def two_algorithms(kernel: Kernel) -> Plan:
    """AdamW, and SGD with momentum for the backbone's weights."""
    sgd = Rule("backbone" & ndim(min=2), optimizer="SGD", lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    kernels = [Rule("*", **kernel)] if kernel else []
    return Plan([Rule("*", optimizer="AdamW", lr=LR, weight_decay=DECAY), sgd, *kernels])


def one_group(model: nn.Module, kernel: Kernel) -> Work:
    """Plain AdamW, one group."""
    return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY, **kernel).step


def same_groups(model: nn.Module, kernel: Kernel) -> Work:
    """Plain AdamW on the groups of the plan."""
    groups = GroupedOptimizer(model, one_algorithm({})).resolution.torch_groups()
    return torch.optim.AdamW(groups, **kernel).step


def by_hand(model: nn.Module, kernel: Kernel) -> Work:
    """The list of two plain optimizers on the slices of the plan."""
    resolution = GroupedOptimizer(model, two_algorithms({})).resolution
    slices = {
        algorithm: [p for group in resolution.torch_groups(algorithm) for p in group["params"]]
        for algorithm in ("AdamW", "SGD")
    }
    optimizers = [
        torch.optim.AdamW(slices["AdamW"], lr=LR, weight_decay=DECAY, **kernel),
        torch.optim.SGD(slices["SGD"], lr=LR, momentum=MOMENTUM, weight_decay=DECAY, **kernel),
    ]
    return lambda: [optimizer.step() for optimizer in optimizers]


def named(plan: Callable[[Kernel], Plan]) -> Builder:
    """Ours, with a plan that names its kernels."""
    return lambda model, kernel: GroupedOptimizer(model, plan(kernel)).step


def silent(plan: Callable[[Kernel], Plan]) -> Builder:
    """Ours, with a plan that says nothing about kernels: it looks at each tensor and takes the fused ones."""
    return lambda model, kernel: GroupedOptimizer(model, plan({})).step


def floor_of(plan: Plan, model: nn.Module) -> float:
    """Seconds that moving the bytes of one step takes."""
    groups = GroupedOptimizer(model, plan).resolution.groups
    return sum(group.numel * MOVED[str(group.algorithm)] for group in groups) / speed(model)


def compare(
    title: str, plan: Callable[[Kernel], Plan], others: Mapping[str, Builder], kernel: Kernel, scale: Scale
) -> Table:
    """Race every size."""
    ours = {OURS: silent(plan), NAMED: named(plan)} if kernel is FUSED else {OURS: named(plan)}
    builders, reference, rows = {**others, **ours}, list(others)[-1], []
    for name, size in [*SIZES.items()][: 1 if scale.quick else None]:
        models = copies(size(), len(builders))
        works = {who: build(model, kernel) for (who, build), model in zip(builders.items(), models, strict=True)}
        results = race(works, reference, scale.seconds(2.0))
        times = [milliseconds(results[who].seconds) for who in builders]
        ratios = [f"{results[who].ratio:.2f} ± {results[who].spread:.2f}" for who in ours]
        rows.append([f"{name}, {described(size())}", milliseconds(floor_of(plan({}), size())), *times, *ratios])
    return Table(title, ["parameters", "floor", *builders, *(f"{who} / {reference}" for who in ours)], rows)


def tables(scale: Scale) -> Iterator[Table]:
    """Four tables."""
    plain = {"AdamW, one group": one_group, "same groups": same_groups}
    yield compare("AdamW, fused", one_algorithm, plain, FUSED, scale)
    yield compare("AdamW, loop", one_algorithm, plain, LOOP, scale)
    yield compare("AdamW and SGD, fused", two_algorithms, {"the list": by_hand}, FUSED, scale)
    yield compare("AdamW and SGD, loop", two_algorithms, {"the list": by_hand}, LOOP, scale)
