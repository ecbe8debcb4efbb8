"""One loop for every contestant: it knows an optimizer, a scheduler and some task weights, and nothing of plans.

That is the claim under test: `GroupedOptimizer` and `PlanScheduler` enter a plain loop where torch's own two stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from groupwise.demos.model import TwoDigitNet
from groupwise.demos.two_digits import Pairs


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
    weights: Mapping[str, float],
    watch: Callable[[Step], None] = lambda step: None,
) -> list[Step]:
    """Train `model` in place on the weighted sum of its losses; `watch` sees every step of the history returned."""
    history: list[Step] = []
    for number, batch in enumerate(batches, start=1):
        answers = model(batch.images)
        loss = weighted(losses(answers, batch.targets), weights)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        history.append(Step(number, loss.item(), score(answers, batch.targets)))
        watch(history[-1])
    return history


def losses(answers: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The loss of each task on a batch: two cross-entropies, and a squared error on 0..18."""
    return {
        "left": functional.cross_entropy(answers["left"], targets["left"]),
        "right": functional.cross_entropy(answers["right"], targets["right"]),
        "sum": functional.mse_loss(answers["sum"], targets["sum"]),
    }


def weighted(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """The sum that is minimised."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()


@torch.no_grad()
def evaluate(model: TwoDigitNet, pairs: Pairs) -> Score:
    """The score on pairs that the training did not see."""
    return score(model(pairs.images), pairs.targets)


def score(answers: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> Score:
    """The share of right digits and the mean distance of the sum."""
    right = {side: (answers[side].argmax(1) == targets[side]).float().mean().item() for side in ("left", "right")}
    return Score(right["left"], right["right"], (answers["sum"] - targets["sum"]).abs().mean().item())
