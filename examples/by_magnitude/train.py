"""Small weights learn faster, large ones slower, and who is small changes.    python -m examples.by_magnitude.train

Tutorials on "parameter-specific learning rates" sort tensors by their mean absolute weight, once, before training. Here
a plan does it (`magnitude(below=0.05)`), and the loop asks again every 20 steps (`optimizer.regroup()`): a tensor
that has grown moves to another group and takes its state along.

The job is scikit-learn's digits with 400 scans to train on, and a network of four dense layers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
STEPS, BATCH, EVERY = 200, 64, 20
PARTS = {"train": (0, 400), "search": (400, 800), "validation": (800, 1300), "test": (1300, 1797)}
"""Which scans, in an order shuffled once."""


@cache
def load(part: str) -> tuple[Tensor, Tensor]:
    """Scans [n, 64] with values from 0 to 1, and which digits they are [n]."""
    source = load_digits()
    order = torch.randperm(len(source.target), generator=torch.Generator().manual_seed(0))[slice(*PARTS[part])]
    return torch.as_tensor(source.data, dtype=torch.float32)[order] / 16, torch.as_tensor(source.target)[order]


def networks(seed: int) -> nn.Sequential:
    """Four dense layers, wide and narrow in turns: initial weights have a mean size of 0.06 and 0.03."""
    torch.manual_seed(seed)
    layers = [(64, 256), (256, 64), (64, 256), (256, 10)]
    parts = [part for sizes in layers for part in (nn.Linear(*sizes), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, part: str, steps: int, seed: int, *,
    regroup_every: int = 0, observer: Observer | None = None,
) -> int:  # fmt: skip
    """The usual loop, with a regroup now and then; how many times a tensor changed its group."""
    (scans, digits), generator, moved = load(part), torch.Generator().manual_seed(seed), 0
    for step in range(steps):
        if regroup_every and step and step % regroup_every == 0 and isinstance(optimizer, GroupedOptimizer):
            before = _groups(optimizer)
            optimizer.regroup()
            moved += sum(before[name] != group for name, group in _groups(optimizer).items())
        rows = torch.randint(len(digits), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(model(scans[rows]), digits[rows])
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()
    return moved


def _groups(optimizer: GroupedOptimizer) -> dict[str, str]:
    """The group of each parameter, by name."""
    return {info.name: group.name for group in optimizer.resolution.groups for info in group.parameters}


@torch.no_grad()
def score(model: nn.Module, part: str) -> dict[str, float]:
    """Per cent of unseen scans that are right."""
    scans, digits = load(part)
    return {"digit": 100 * (model(scans).argmax(1) == digits).float().mean().item()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("by_magnitude", STEPS, argv)
    torch.set_num_threads(1)

    model = networks(seed=0)
    optimizer = GroupedOptimizer(model, Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        moved = train(model, optimizer, scheduler, "train", given.steps, 0, regroup_every=EVERY, observer=observer)
    sys.stdout.write(f"{optimizer.resolution}\n\n{moved} changes of group\n")
    tell(percents(score(model, "test")), observer.path)


if __name__ == "__main__":
    main()
