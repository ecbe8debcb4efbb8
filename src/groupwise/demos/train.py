"""One loop for every contestant: it knows an optimizer, a scheduler and some task weights, and nothing of plans.

That is the claim under test: `GroupedOptimizer` and `PlanScheduler` enter a plain loop where torch's own two stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from groupwise.balance import BalanceResult
from groupwise.demos.model import TwoDigitNet
from groupwise.demos.two_digits import Pairs
from groupwise.observe import Observer

Backward: TypeAlias = Callable[[Mapping[str, torch.Tensor]], BalanceResult | torch.Tensor]
"""Writes `.grad` from the tasks' losses; returns what was minimised, or a balancer's result."""


@dataclass(frozen=True)
class Score:
    """How well the tasks are done: the share of digits right, and how far off the sum is on average."""

    left: float
    right: float
    sum_error: float


@dataclass(frozen=True)
class Step:
    """One step of the training: the weighted loss and the score on the batch, both before the update."""

    number: int
    loss: float
    score: Score


def train(
    model: TwoDigitNet,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    batches: Iterable[Pairs],
    backward: Backward,
    watch: Callable[[Step], None] = lambda step: None,
    observer: Observer | None = None,
    weights: Mapping[str, float] | None = None,
    clips: bool = False,
) -> list[Step]:
    """Train `model` in place on the losses of its tasks; `watch` sees every step of the history returned.

    A plain program tells the observer the `weights` that it sums its losses with, so that shares are of the gradients
    in use, and whether its step begins with clipping, so that norms are seen before it.
    """
    history: list[Step] = []
    for number, batch in enumerate(batches, start=1):
        answers = model(batch.images)
        by_task = losses(answers, batch.targets)
        optimizer.zero_grad()
        if observer is not None:
            observer.tasks({task: (weights or {}).get(task, 1.0) * loss for task, loss in by_task.items()})
            observer.log(losses=by_task)
        result = backward(by_task)
        if observer is not None:
            observe(observer, result)
            if clips:
                observer.before_clip()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        loss = result.loss if isinstance(result, BalanceResult) else result.item()
        history.append(Step(number, loss, score(answers, batch.targets)))
        watch(history[-1])
    return history


def observe(observer: Observer, result: BalanceResult | torch.Tensor) -> None:
    """Log what a backward returned."""
    if isinstance(result, BalanceResult):
        observer.log(balance=result)
    else:
        observer.log(loss=result)


def losses(answers: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The loss of each task on a batch: two cross-entropies, and a squared error on 0..18."""
    return {
        "left": functional.cross_entropy(answers["left"], targets["left"]),
        "right": functional.cross_entropy(answers["right"], targets["right"]),
        "sum": functional.mse_loss(answers["sum"], targets["sum"]),
    }


@torch.no_grad()
def evaluate(model: TwoDigitNet, pairs: Pairs) -> Score:
    """The score on pairs that the training did not see."""
    return score(model(pairs.images), pairs.targets)


def score(answers: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> Score:
    """The share of right digits and the mean distance of the sum."""
    right = {side: (answers[side].argmax(1) == targets[side]).float().mean().item() for side in ("left", "right")}
    return Score(right["left"], right["right"], (answers["sum"] - targets["sum"]).abs().mean().item())
