"""A two-digit number: the tens are seen, the units are heard.    python -m examples.two_branches.train

Each sample is made of two scans of scikit-learn's digits. The first goes into a small convolutional network as an
image, with the values that the scanner gave (0 to 16). The second goes into a GRU as a sequence of its eight rows,
standardised, as spectra of sound are. One classifier reads both and names the number, 0 to 99: it needs both branches.

A fixed 497 of the 1,797 scans are the test's; no training and no search for a rate sees them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.program import options, percents, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, TEST_PAIRS = 200, 64, 4000


@dataclass(frozen=True)
class Scans:
    """Digits [n, 8, 8] as they came and standardised, and which they are [n]."""

    raw: Tensor
    standardised: Tensor
    digits: Tensor

    def pairs(self, count: int, generator: torch.Generator, standardise: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """`count` random pairs: images [n, 1, 8, 8], sequences of rows [n, 8, 8], and the numbers 0 to 99 [n]."""
        seen, heard = torch.randint(len(self.digits), (2, count), generator=generator)
        images = (self.standardised if standardise else self.raw)[seen].unsqueeze(1)
        return images, self.standardised[heard], 10 * self.digits[seen] + self.digits[heard]


@cache
def load(validation: bool = False) -> tuple[Scans, Scans]:
    """1,300 scans to train on and 497 to test on; for `validation` 1,000 and 300 of the 1,300."""
    source = load_digits()
    raw, digits = torch.as_tensor(source.images, dtype=torch.float32), torch.as_tensor(source.target)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    train, test = (order[:1000], order[1000:1300]) if validation else (order[:1300], order[1300:])
    standardised = (raw - raw[train].mean()) / raw[train].std()
    return tuple(Scans(raw[part], standardised[part], digits[part]) for part in (train, test))


def networks(seed: int) -> nn.ModuleDict:
    """The image branch, the sound branch and the classifier: 16, 7 and 11 thousand parameters."""
    torch.manual_seed(seed)
    image = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 48)),
    )
    sound = nn.GRU(8, 48, batch_first=True)
    classifier = nn.Sequential(nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 100))
    return nn.ModuleDict({"image": image, "sound": sound, "classifier": classifier})


def answers(model: nn.ModuleDict, images: Tensor, rows: Tensor) -> Tensor:
    """The logits [n, 100] of the numbers."""
    features = [model["image"](images), model["sound"](rows)[0][:, -1]]
    return model["classifier"](torch.cat(features, dim=1))


def train(
    model: nn.ModuleDict,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    scans: Scans,
    steps: int,
    seed: int,
    *,
    standardise: bool = False,
    observer: Observer | None = None,
) -> None:
    """The usual loop. It knows nothing of plans: clipping, where there is any, is a part of `optimizer.step()`."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images, rows, numbers = scans.pairs(BATCH, generator, standardise)
        loss = nn.functional.cross_entropy(answers(model, images, rows), numbers)
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
            if not isinstance(optimizer, GroupedOptimizer):
                observer.before_clip()
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, scans: Scans, *, standardise: bool = False) -> dict[str, float]:
    """Per cent of pairs of unseen scans of which the number, its tens (seen) and its units (heard) are right."""
    images, rows, numbers = scans.pairs(TEST_PAIRS, torch.Generator().manual_seed(1), standardise)
    named = answers(model, images, rows).argmax(1)
    right = {"number": named == numbers, "seen": named // 10 == numbers // 10, "heard": named % 10 == numbers % 10}
    return {what: 100 * hit.float().mean().item() for what, hit in right.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("two_branches", STEPS, argv)
    torch.set_num_threads(1)

    scans, unseen = load()
    model = networks(seed=0)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, by="network", scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, scans, given.steps, seed=0, observer=observer)
    tell(percents(score(model, unseen)), observer.path)


if __name__ == "__main__":
    main()
