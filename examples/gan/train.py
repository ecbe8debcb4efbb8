"""A GAN that draws digits: two networks in turns, one optimizer.    python -m examples.gan.train

Generator and critic have the non-saturating loss of Goodfellow et al. (2014). The scans are scikit-learn's, 8 x 8
pixels. Samples are judged as by the Fréchet inception distance (Heusel et al. 2017), with features of a small
classifier of the same scans in place of Inception's: the distance of two normal distributions with the means and
covariances of real and of drawn digits. A fixed 497 of the 1,797 scans are the test's; no training, the classifier's
included, sees them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.program import options, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, NOISE, WIDTH, FEATURES = 800, 64, 16, 96, 24
EVERY = {"updates": 5, "weights": 5}
"""Odd: at every twentieth step, as by default, it is always the critic's turn."""

Turn = Callable[[str], AbstractContextManager[Any]]
"""`with turn("critic") as optimizer`: inside, that network alone has gradients, and the optimizer steps it alone."""
softplus = nn.functional.softplus


@cache
def load(validation: bool = False) -> tuple[Tensor, Tensor]:
    """1,300 scans [n, 64] from -1 to 1 to train on and 497 to judge by; for `validation` 1,000 and 300 of the 1,300."""
    scans = torch.as_tensor(load_digits().data, dtype=torch.float32) / 8 - 1
    order = torch.randperm(len(scans), generator=torch.Generator().manual_seed(0))
    return (scans[order[:1000]], scans[order[1000:1300]]) if validation else (scans[order[:1300]], scans[order[1300:]])


def networks(seed: int) -> nn.ModuleDict:
    """Noise [n, 16] to drawn scans [n, 64], and scans to one number each: 17 and 16 thousand parameters."""
    torch.manual_seed(seed)
    generator = nn.Sequential(
        *(nn.Linear(NOISE, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 64), nn.Tanh())
    )
    critic = nn.Sequential(
        *(nn.Linear(64, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, 1))
    )
    return nn.ModuleDict({"generator": generator, "critic": critic})


def train(
    model: nn.ModuleDict, turn: Turn, schedulers: Sequence[LRScheduler], scans: Tensor, steps: int, seed: int,
    *, critic_updates: int = 1, observer: Observer | None = None,
) -> None:  # fmt: skip
    """One update of the critic, or more, one of the generator, one step of the schedule; and so on."""
    randomness = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for _ in range(critic_updates):
            real = scans[torch.randint(len(scans), (BATCH,), generator=randomness)]
            with turn("critic") as optimizer:
                drawn = model["generator"](torch.randn(BATCH, NOISE, generator=randomness))
                loss = (softplus(-model["critic"](real)) + softplus(model["critic"](drawn))).mean()
                update(optimizer, "critic", loss, observer)
        with turn("generator") as optimizer:
            noise = torch.randn(BATCH, NOISE, generator=randomness)
            loss = softplus(-model["critic"](model["generator"](noise))).mean()
            update(optimizer, "generator", loss, observer)
        for scheduler in schedulers:
            scheduler.step()


def update(optimizer: Optimizer, name: str, loss: Tensor, observer: Observer | None) -> None:
    """One step of the network whose turn it is."""
    optimizer.zero_grad()
    loss.backward()
    if observer is not None:
        observer.log(losses={name: loss})
    optimizer.step()


@cache
@torch.enable_grad()
def classifier() -> nn.Sequential:
    """A classifier of the 1,300 scans; its 24 tanh units are the features. It draws no random number of its user's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, FEATURES), nn.Tanh(), nn.Linear(FEATURES, 10))
    source = load_digits()
    order = torch.randperm(len(source.target), generator=torch.Generator().manual_seed(0))[:1300]
    scans, digits = load()[0], torch.as_tensor(source.target)[order]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(scans), digits).backward()
        optimizer.step()
    return model


@torch.no_grad()
def frechet(one: Tensor, other: Tensor) -> float:
    """‖μ - μ'‖² + tr(C + C' - 2 (C C')^½) of the features of two sets of scans, in float64."""
    means, covariances = [], []
    for scans in (one, other):
        features = classifier()[:-1](scans).double()
        means.append(features.mean(0))
        covariances.append(features.T.cov())
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    distance = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * root
    return float(distance)


@torch.no_grad()
def score(model: nn.ModuleDict, unseen: Tensor) -> dict[str, float]:
    """The Fréchet distance of 2,000 drawn digits from unseen ones, and of the rarest digit among them the per cent."""
    drawn = model["generator"](torch.randn(2000, NOISE, generator=torch.Generator().manual_seed(1)))
    if not drawn.isfinite().all():
        return {"distance": math.inf, "rarest digit": 0.0}
    named = classifier()(drawn).argmax(1).bincount(minlength=10)
    return {"distance": frechet(drawn, unseen), "rarest digit": 100 * named.min().item() / len(drawn)}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("gan", STEPS, argv)
    torch.set_num_threads(1)

    scans, unseen = load()
    model = networks(seed=0)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, by="network", every=EVERY, scheduler=scheduler) as observer:
        train(model, optimizer.only, [scheduler], scans, given.steps, seed=0, observer=observer)
    tell(", ".join(f"{what} {value:.2f}" for what, value in score(model, unseen).items()), observer.path)


if __name__ == "__main__":
    main()
