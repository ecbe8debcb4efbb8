"""The scanner changed, and sixty new labels are all there is.    python -m examples.input_shift.train

A small convolutional network is trained on 900 clean scans of scikit-learn's digits. Then the inputs change: low
contrast (0.15 x + 0.7), blur with noise, or inversion (1 - x). It is tuned on 60 labelled scans of the new kind, all in
one batch, and judged on 497 that nothing else sees. By plan.toml its last layer alone is tuned; Lee et al. (Surgical
Fine-Tuning Improves Adaptation to Distribution Shifts, 2023) tune the first block, which compare.py has as well.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.program import options, percents, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, LABELS = 40, 60
SHIFTS = ("low contrast", "blur and noise", "inversion")
PARTS = {
    "clean": (0, 900),
    "search": (900, 980),
    "validation": (980, 1140),
    "labelled": (1140, 1300),
    "test": (1300, 1797),
}
"""Which scans, in an order shuffled once, are for what; 60 are drawn from `search` or `labelled`."""


@dataclass(frozen=True)
class Scans:
    """Images [n, 1, 8, 8] with values from 0 to 1, before any shift, and which digits they are [n]."""

    images: Tensor
    digits: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Scans:
        """`count` of them, all different."""
        rows = torch.randperm(len(self.digits), generator=generator)[:count]
        return Scans(self.images[rows], self.digits[rows])


@cache
def load(part: str) -> Scans:
    """The scans of one of PARTS."""
    source = load_digits()
    order = torch.randperm(len(source.target), generator=torch.Generator().manual_seed(0))[slice(*PARTS[part])]
    images = torch.as_tensor(source.images, dtype=torch.float32).unsqueeze(1) / 16
    return Scans(images[order], torch.as_tensor(source.target)[order])


def shifted(images: Tensor, shift: str, seed: int = 0) -> Tensor:
    """The same images as the new inputs show them; the noise is that of a seed."""
    if shift == "low contrast":
        return 0.15 * images + 0.7
    if shift == "inversion":
        return 1 - images
    blurred = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    return blurred + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))


def networks(seed: int) -> nn.Sequential:
    """Three blocks and a last layer: 2, 14, 8 and 1 thousand parameters."""

    def block(channels: int, out: int) -> nn.Sequential:
        first, second = (nn.Conv2d(before, out, 3, padding=1) for before in (channels, out))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2))

    torch.manual_seed(seed)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU())
    parts = {"block1": block(1, 16), "block2": block(16, 32), "block3": dense, "last": nn.Linear(64, 10)}
    return nn.Sequential(OrderedDict(parts))


@cache
def _trained(seed: int) -> dict[str, Tensor]:
    """The weights after 200 steps on the clean scans."""
    model, clean, generator = networks(seed), load("clean"), torch.Generator().manual_seed(seed)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    scheduler = CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        some = clean.draw(64, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(some.images), some.digits).backward()
        optimizer.step()
        scheduler.step()
    return model.state_dict()


def pretrained(seed: int) -> nn.Sequential:
    """A network that knows the clean scans."""
    model = networks(seed)
    model.load_state_dict(_trained(seed))
    return model


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, images: Tensor, digits: Tensor, steps: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop, on all labels at once."""
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), digits)
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.Module, shift: str, part: str = "test") -> dict[str, float]:
    """Per cent right of shifted scans that the tuning did not see, and of the same scans as they were."""
    scans = load(part)
    kinds = {"new inputs": shifted(scans.images, shift, seed=1), "clean": scans.images}
    return {
        kind: 100 * (model(images).argmax(1) == scans.digits).float().mean().item() for kind, images in kinds.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Tune by plan.toml for low contrast, print the score and the findings, and write the run and its report."""
    given = options("input_shift", STEPS, argv)
    torch.set_num_threads(1)

    model = pretrained(seed=0)
    labelled = load("labelled").draw(LABELS, torch.Generator().manual_seed(0))
    optimizer = GroupedOptimizer(model, Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        images = shifted(labelled.images, "low contrast")
        train(model, optimizer, scheduler, images, labelled.digits, given.steps, observer)
    tell(percents(score(model, "low contrast")), observer.path)


if __name__ == "__main__":
    main()
