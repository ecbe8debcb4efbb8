"""All of an update that is not the model, by hand and by a plan: what `control_plane` and `mixes` compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from groupwise import GroupedOptimizer, PlanScheduler

STEPS, BOUND, RATE = 10**6, 0.5, 1e-3


def course(step: int) -> float:
    """The share of its peak that a rate has at an update."""
    return 0.5 * (1 + math.cos(math.pi * min(step / STEPS, 1.0)))


def by_hand(
    optimizers: Sequence[torch.optim.Optimizer], scopes: Sequence[list[torch.Tensor]], alone: bool
) -> Callable[[], object]:
    """A call of clip_grad_norm_ for each scope, every step, a scheduler for each, zero_grad; or the steps alone."""
    if alone:
        return lambda: [one.step() for one in optimizers]
    schedulers = [LambdaLR(optimizer, course) for optimizer in optimizers]

    def update() -> None:
        for tensors in scopes:
            clip_grad_norm_(tensors, BOUND, foreach=True)
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    return update


def by_plan(optimizer: GroupedOptimizer, alone: bool) -> Callable[[], object]:
    """The same of a plan that clips and schedules, which returns the optimizer; or its step alone."""
    if alone:
        return optimizer.step
    scheduler = PlanScheduler(optimizer, total_steps=STEPS)

    def update() -> GroupedOptimizer:
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        return optimizer

    return update
