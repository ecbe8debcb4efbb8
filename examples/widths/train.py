"""A rate that is tuned on a narrow network, for wide ones: factors of shape.    python -m examples.widths.train

Two scans of scikit-learn's digits, one beside the other, are one number, 0 to 99, which a network of three hidden
layers names. It is trained at widths from 16 to 768. Under Adam each entry of a matrix moves by about the rate at every
step, so what a matrix adds to a unit grows with its fan-in; muP (Yang et al. 2022) divides the rate of matrices by it.
The read-out begins at 0, as muP allows.

The scans, 1,300 to train on and 497 to test on, are those of examples.two_branches.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.program import options, tell
from examples.two_branches.train import Scans, load
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
WIDTHS = (16, 64, 256, 768)
STEPS, BATCH, TEST_PAIRS, WIDTH = 100, 64, 2000, 256


def networks(seed: int, width: int = WIDTH) -> nn.ModuleDict:
    """128 pixels [n, 128] to the logits [n, 100] of the numbers."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Linear(128, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 100),
    )
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return nn.ModuleDict({"network": network})


def pairs(scans: Scans, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` random pairs: pixels [n, 128], and the numbers [n]."""
    left, right, numbers = scans.pairs(count, generator, standardise=True)
    return torch.cat([left.flatten(1), right.flatten(1)], 1), numbers


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, scans: Scans, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        pixels, numbers = pairs(scans, BATCH, generator)
        loss = nn.functional.cross_entropy(model["network"](pixels), numbers)
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, scans: Scans) -> dict[str, float]:
    """Of pairs of unseen scans the cross-entropy, infinite if the network diverged, and the per cent named right."""
    pixels, numbers = pairs(scans, TEST_PAIRS, torch.Generator().manual_seed(1))
    logits = model["network"](pixels)
    loss = nn.functional.cross_entropy(logits, numbers).item()
    right = 100 * (logits.argmax(1) == numbers).float().mean().item()
    return {"test loss": loss if math.isfinite(loss) else math.inf, "right": right}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("widths", STEPS, argv, {"width": WIDTH})
    torch.set_num_threads(1)

    scans, unseen = load()
    model = networks(seed=0, width=given.width)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, by="layer", scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, scans, given.steps, seed=0, observer=observer)
    percent = score(model, unseen)
    tell(f"test loss {percent['test loss']:.3f}, {percent['right']:.1f} % right", observer.path)


if __name__ == "__main__":
    main()
