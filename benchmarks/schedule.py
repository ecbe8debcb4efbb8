"""Schedules:  python -m benchmarks --only schedule

A tick of `PlanScheduler` with 500 groups and four scheduled hyperparameters in each, beside torch schedulers that move
the learning rate alone; and `at`, shape by shape. Plain Python both: the floor is one dict write per value (2,000).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from benchmarks.measure import Scale, Table, Work, milliseconds, race, repeated
from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, layer_decay
from groupwise.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    piecewise,
    polynomial,
    step_decay,
    triangular,
    warmup_stable_decay,
)

GROUPS, STEPS = 500, 10**6
SHAPES: list[Schedule] = [
    constant(1.0),
    linear(1.0),
    cosine(1.0),
    cosine(1.0, warmup="5%"),
    polynomial(1.0, power=2.0),
    exponential(1.0, 0.9, every="100 steps"),
    inverse_sqrt(1.0, warmup="5%"),
    step_decay(1.0, 0.5, every="100 steps"),
    multi_step(1.0, 0.1, at=["50%", "75%"]),
    warmup_stable_decay(1.0, decay="20%"),
    one_cycle(1.0),
    triangular(0.1, 1.0, up="100 steps"),
    cosine_restarts(1.0, first="1%"),
    piecewise([("0%", 0.1), ("40%", 1.0), ("100%", 0.0)]),
    cosine(1.0, warmup="5%").scaled(0.1).clamped(low=1e-3),
    constant(1.0).then(linear(1.0), at="80%"),
]


def model() -> nn.Module:
    """One tiny layer per group."""
    return nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(GROUPS))})


def planned(plan: Plan) -> Work:
    """The tick of a scheduler on 500 groups."""
    optimizer = GroupedOptimizer(model(), plan)
    if len(optimizer.param_groups) != GROUPS:
        raise ValueError(f"{len(optimizer.param_groups)} groups in place of {GROUPS}")
    return PlanScheduler(optimizer, total_steps=STEPS).step


def four_numbers() -> Work:
    """lr, momentum, dampening and weight decay under SGD."""
    moving = {"momentum": linear(0.8, 0.9), "dampening": linear(0.0, 0.1), "weight_decay": linear(0.0, 0.1)}
    rule = Rule("*", optimizer="SGD", lr=cosine(1e-3, warmup="5%"), **moving)
    return planned(Plan([rule, Rule("*", lr=layer_decay(0.99))]))


def four_with_betas() -> Work:
    """lr, weight decay and both betas under AdamW: the betas are a tuple that is made anew."""
    moving = {"weight_decay": linear(0.0, 0.1), "betas": (linear(0.85, 0.9), linear(0.95, 0.99))}
    rule = Rule("*", optimizer="AdamW", lr=cosine(1e-3, warmup="5%"), **moving)
    return planned(Plan([rule, Rule("*", lr=layer_decay(0.99))]))


def the_rate_alone() -> Work:
    """lr under SGD."""
    return planned(Plan([Rule("*", optimizer="SGD", lr=cosine(1e-3)), Rule("*", lr=layer_decay(0.99))]))


def torch_optimizer() -> torch.optim.Optimizer:
    """Plain SGD with the same 500 groups."""
    return torch.optim.SGD([{"params": [p], "lr": 1e-3 * 0.99**i} for i, p in enumerate(model().parameters())])


def many_schedulers() -> Work:
    """One optimizer and one scheduler per group."""
    optimizers = [torch.optim.SGD(group["params"], lr=group["lr"]) for group in torch_optimizer().param_groups]
    schedulers = [CosineAnnealingLR(optimizer, STEPS) for optimizer in optimizers]
    return lambda: [scheduler.step() for scheduler in schedulers]


def writes() -> Work:
    """The floor: 2,000 numbers into 500 dicts."""
    groups = torch_optimizer().param_groups
    keys = ("lr", "momentum", "dampening", "weight_decay")

    def write() -> None:
        for group in groups:
            for key in keys:
                group[key] = 0.1

    return write


def race_ticks(scale: Scale) -> Table:
    """500 groups."""
    works = {
        "floor: 2,000 dict writes": writes(),
        "PlanScheduler, lr alone": the_rate_alone(),
        "PlanScheduler, four numbers": four_numbers(),
        "PlanScheduler, lr, weight decay, two betas": four_with_betas(),
        "torch LambdaLR, lr alone": LambdaLR(torch_optimizer(), [lambda step: 0.5] * GROUPS).step,
        "torch CosineAnnealingLR, lr alone": CosineAnnealingLR(torch_optimizer(), STEPS).step,
        "500 torch CosineAnnealingLR, lr alone": many_schedulers(),
    }
    results = race(works, "PlanScheduler, four numbers", scale.seconds(4.0))
    rows = [[name, milliseconds(own.seconds), f"{own.ratio:.2f} ± {own.spread:.2f}"] for name, own in results.items()]
    return Table(f"A step of the scheduler, {GROUPS} groups", ["who", "time", "to four numbers"], rows)


def race_shapes(scale: Scale) -> Table:
    """`at`."""
    works = {str(shape): repeated(lambda shape=shape: shape.at(1234, 10_000, 100), 200) for shape in SHAPES}
    results = race(works, str(SHAPES[0]), scale.seconds(2.0))
    rows = [
        [name, milliseconds(own.seconds / 200), f"{own.ratio:.2f} ± {own.spread:.2f}"] for name, own in results.items()
    ]
    return Table("schedule.at", ["schedule", "time", "to constant"], rows)


def tables(scale: Scale) -> Iterator[Table]:
    """Both tables."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # schedulers step here without an optimizer that does
        ticks = race_ticks(scale)
    yield ticks
    yield race_shapes(scale)
