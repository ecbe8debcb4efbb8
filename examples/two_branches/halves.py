"""The two branches made small, so that many ways to train are compared in a minute: both see half of one scan.

The upper half of a digit goes into the first branch with the values that the scanner gave (0 to 16), the lower half
into the second, standardised. Each is one hidden layer of 32 units; one classifier reads both and names the digit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.comparing import Scores
from examples.two_branches.train import Scans, load

STEPS, BATCH = 200, 64
Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler]]


def networks(seed: int) -> nn.ModuleDict:
    """Two branches and a classifier: 1.1, 1.1 and 0.7 thousand parameters."""
    torch.manual_seed(seed)
    branches = {name: nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for name in ("image", "sound")}
    return nn.ModuleDict({**branches, "classifier": nn.Linear(64, 10)})


def answers(model: nn.ModuleDict, scans: Scans, places: Tensor) -> Tensor:
    """The logits [n, 10]."""
    seen, heard = scans.raw[places, :4].flatten(1), scans.standardised[places, 4:].flatten(1)
    return model["classifier"](torch.cat([model["image"](seen), model["sound"](heard)], dim=1))


def run(build: Builder, rate: float, seed: int, steps: int, validation: bool) -> Scores:
    """Train under one seed and judge on scans that the training did not see."""
    scans, unseen = load(validation)
    model, generator = networks(seed), torch.Generator().manual_seed(seed)
    optimizer, scheduler = build(model, rate, steps)
    for _ in range(steps):
        places = torch.randint(len(scans.digits), (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(answers(model, scans, places), scans.digits[places]).backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        right = answers(model, unseen, torch.arange(len(unseen.digits))).argmax(1) == unseen.digits
    return {"digit": 100 * right.float().mean().item()}
