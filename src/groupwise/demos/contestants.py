"""Who competes: the plan, and the two single optimizers that it must be honest about.

The first baseline is what people write: one AdamW at the usual rate, the losses added up. The second is what a careful
person reaches with the same single AdamW: rate searched for, cosine with warmup, the loud task turned down, clipping.
Both are torch alone. Every contestant gets the same data, the same initial weights and the same number of updates.

Where a plain program calls `backward` on a weighted sum, the plan's contestant calls its balancer, which reads the
`[balance]` table of the same file.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from groupwise.balance import Balancer
from groupwise.demos.train import Backward
from groupwise.optim import GroupedOptimizer, PlanScheduler
from groupwise.plan import Plan

PLAN_FILE = "two_digits.toml"
_RAW_SUM = {"left": 1.0, "right": 1.0, "sum": 1.0}
_BALANCED = {"left": 1.0, "right": 1.0, "sum": 0.05}
_WARMUP = 0.05

Builder = Callable[[nn.Module, int], tuple[Optimizer, LRScheduler | None]]


@dataclass(frozen=True)
class Contestant:
    """A way to train.

    `build(model, steps)` makes the optimizer and the scheduler, `backward()` what turns the tasks' losses into
    gradients; `key` is the name of its folder. A plain program states the `weights` of its sum, and whether it `clips`
    as a step begins, for the observer's sake alone.
    """

    name: str
    key: str
    build: Builder
    backward: Callable[[], Backward]
    weights: Mapping[str, float] | None = None
    clips: bool = False


def planned(path: Path) -> Contestant:
    """A plan file: its rules run by `GroupedOptimizer` and `PlanScheduler`, its `[balance]` table by `Balancer`."""
    return Contestant("the plan", "plan", run_plan(path), lambda: Balancer.load(path).backward)


def run_plan(path: Path) -> Callable[[nn.Module, int], tuple[Optimizer, LRScheduler]]:
    """What makes the optimizer and the scheduler of a plan file."""
    plan = Plan.load(path)

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        optimizer = GroupedOptimizer(model, plan)
        return optimizer, PlanScheduler(optimizer, total_steps=steps)

    return build


def shipped(name: str = PLAN_FILE) -> Path:
    """A plan file that ships with the demos."""
    with importlib.resources.as_file(importlib.resources.files(__package__) / name) as path:
        return path


def naive() -> Contestant:
    """One AdamW at 1e-3, the losses added up."""
    return Contestant(
        "one AdamW, raw sum",
        "raw-sum",
        lambda model, steps: (AdamW(model.parameters(), lr=1e-3), None),
        lambda: _summed(_RAW_SUM),
        _RAW_SUM,
    )


def tuned() -> Contestant:
    """One AdamW at 1e-2, cosine with warmup, the sum's loss times 0.05, gradients clipped to norm 1."""

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        optimizer = AdamW(model.parameters(), lr=1e-2)
        optimizer.register_step_pre_hook(_clipper(model, 1.0))
        return optimizer, cosine_with_warmup(optimizer, steps)

    return Contestant("one AdamW, tuned", "tuned", build, lambda: _summed(_BALANCED), _BALANCED, clips=True)


def _clipper(model: nn.Module, limit: float) -> Callable[..., None]:
    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), limit)

    return clip


def cosine_with_warmup(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Torch's own scheduler: a cosine to 0 after 5 % of warmup."""
    warmup = max(1, round(_WARMUP * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return LambdaLR(optimizer, factor)


def _summed(weights: Mapping[str, float]) -> Backward:
    def backward(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        loss = torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return backward
