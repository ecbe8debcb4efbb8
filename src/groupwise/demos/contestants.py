"""Who competes: the plan, and the two single optimizers that it must be honest about.

The first baseline is what people write: one AdamW at the usual rate, the losses added up. The second is what a careful
person reaches with the same single AdamW: rate searched for, cosine with warmup, the loud task turned down, clipping.
Both are torch alone. Every contestant gets the same data, the same initial weights and the same number of updates.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from groupwise.errors import PlanError
from groupwise.optim import GroupedOptimizer, PlanScheduler
from groupwise.plan import Plan

PLAN_FILE = "two_digits.toml"
_RAW_SUM = {"left": 1.0, "right": 1.0, "sum": 1.0}
_BALANCED = {"left": 1.0, "right": 1.0, "sum": 0.05}
_WARMUP = 0.05

Builder = Callable[[nn.Module, int], tuple[Optimizer, LRScheduler | None]]


@dataclass(frozen=True)
class Contestant:
    """A way to train: `build(model, steps)` makes the optimizer and the scheduler, `weights` the tasks' sum."""

    name: str
    build: Builder
    weights: Mapping[str, float]


def load_plan() -> Plan:
    """The plan file that ships with the demo."""
    with importlib.resources.as_file(importlib.resources.files(__package__) / PLAN_FILE) as path:
        return Plan.load(path)


def planned(plan: Plan) -> Contestant:
    """The plan, run by `GroupedOptimizer` and `PlanScheduler`, with the task weights of its `[balance]` table."""

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        optimizer = GroupedOptimizer(model, plan)
        return optimizer, PlanScheduler(optimizer, total_steps=steps)

    return Contestant("the plan", build, _weights(plan))


def naive() -> Contestant:
    """One AdamW at 1e-3, the losses added up."""
    return Contestant("one AdamW, raw sum", lambda model, steps: (AdamW(model.parameters(), lr=1e-3), None), _RAW_SUM)


def tuned() -> Contestant:
    """One AdamW at 1e-2, cosine with warmup, the sum's loss times 0.05, gradients clipped to norm 1."""

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        optimizer = AdamW(model.parameters(), lr=1e-2)
        optimizer.register_step_pre_hook(_clipper(model, 1.0))
        return optimizer, LambdaLR(optimizer, _cosine(steps))

    return Contestant("one AdamW, tuned", build, _BALANCED)


def _clipper(model: nn.Module, limit: float) -> Callable[..., None]:
    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), limit)

    return clip


def _cosine(steps: int) -> Callable[[int], float]:
    warmup = max(1, round(_WARMUP * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


def _weights(plan: Plan) -> Mapping[str, float]:
    match plan.balance:
        case {"method": "Static", "weights": Mapping() as weights} if weights.keys() == _BALANCED.keys():
            return {task: float(weight) for task, weight in weights.items()}
        case _:
            raise PlanError(
                'the demo reads plain task weights: a [balance] table with method = "Static" and '
                f"weights for {', '.join(_BALANCED)}; the plan has {dict(plan.balance or {})!r}"
            )
