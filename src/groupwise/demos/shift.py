"""A network meets pictures of low contrast, and sixty of them are labelled: which of its layers should learn?

After Lee et al., Surgical fine-tuning improves adaptation to distribution shifts (arXiv 2210.11466): where the *input*
changed, tuning the first block alone can do better than tuning everything. The scans are scikit-learn's (1,797 of 8 x 8
pixels); the network is trained on 900 as they are, and judged on those that nothing has seen, at low contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from groupwise.demos.contestants import cosine_with_warmup, run_plan, shipped
from groupwise.demos.initial import initialised
from groupwise.demos.job import Batch, Builder, Entry, Job, Judged
from groupwise.demos.two_digits import load_scans
from groupwise.demos.verdict import Standing

CLEAN, LABELLED, BATCH, WIDTH = 900, 60, 20, 32
CLEAN_STEPS, CLEAN_RATE = 150, 3e-3


class Digits(NamedTuple):
    """Scans [n, 1, 8, 8] and their digits [n]."""

    images: torch.Tensor
    digits: torch.Tensor


class Scans(NamedTuple):
    """Of one seed: clean ones to begin with, a few of low contrast with labels, and the rest of these to judge by."""

    clean: Digits
    labelled: Digits
    unseen: Digits


class Network(nn.Module):
    """30,000 parameters: three blocks and a head; pictures [n, 1, 8, 8] to logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        first = [*_convolution(1), *_convolution(WIDTH)]
        others = ([*_convolution(WIDTH), nn.MaxPool2d(2)] for _ in range(2))
        self.blocks = nn.ModuleList(nn.Sequential(*layers) for layers in (first, *others))
        self.head = nn.Linear(4 * WIDTH, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        for block in self.blocks:
            images = block(images)
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits


def _convolution(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]


class Shift(Job):
    """Which layers should learn when the input has changed?"""

    question = (
        "A network that reads digits meets pictures of low contrast; sixty are labelled. Which layers should learn?\n"
        "The first block alone, by a plan, beside all layers and the head alone, each at the best of a few rates."
    )
    steps, seeds = 60, 6
    judged = Judged("per cent right on unseen scans of low contrast", places=1, higher_is_better=True, luck=2.0)

    def plan(self) -> Path:
        """Of a first block that trains, and the rest frozen."""
        return shipped("shift.toml")

    def entries(self) -> list[Entry]:
        """The plan, everything, and the head, of which the last two are torch alone."""
        return [
            Entry("first block alone, by the plan", "plan", run_plan(self.plan())),
            Entry("all layers, one AdamW", "all", _adamw(lambda model: model, 3e-4)),
            Entry("the head alone, one AdamW", "head", _adamw(lambda model: model.get_submodule("head"), 1e-2)),
        ]

    def model(self, seed: int) -> nn.Module:
        """Trained on the clean scans."""
        model = initialised(Network, seed)
        optimizer = AdamW(model.parameters(), lr=CLEAN_RATE)
        for batch in _batches(scans(seed).clean, seed, CLEAN_STEPS, 64):
            optimizer.zero_grad()
            self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return model

    def batches(self, seed: int, steps: int) -> Iterator[Batch]:
        """Of the labelled scans."""
        return _batches(scans(seed).labelled, seed, steps, BATCH)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy."""
        return functional.cross_entropy(model(batch[0]), batch[1])

    @torch.no_grad()
    def judge(self, model: nn.Module, seed: int) -> float:
        """Per cent of the unseen scans right."""
        images, digits = scans(seed).unseen
        right: float = (model(images).argmax(1) == digits).float().mean().item()
        return 100 * right

    def moral(self, standing: Standing) -> str:
        """What to make of it."""
        return {
            "ahead": "Where the input changed, fewer parameters can be better; which ones depends on the change.",
            "level": "The first block alone, a third of the parameters, does what all layers do.",
            "behind": "Here it is better that all layers learn.",
        }[standing]


@cache
def scans(seed: int) -> Scans:
    """The scans, split under a seed."""
    source = load_scans()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source.digits), generator=generator)
    images, digits = source.images[order].unsqueeze(1), source.digits[order]
    faint = images * 0.15 + 0.7
    first, second = CLEAN, CLEAN + LABELLED
    return Scans(
        Digits(images[:first], digits[:first]),
        Digits(faint[first:second], digits[first:second]),
        Digits(faint[second:], digits[second:]),
    )


def _adamw(part: Callable[[nn.Module], nn.Module], rate: float) -> Builder:
    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler]:
        model.requires_grad_(False)
        optimizer = AdamW(part(model).requires_grad_().parameters(), lr=rate)
        return optimizer, cosine_with_warmup(optimizer, steps)

    return build


def _batches(data: Digits, seed: int, steps: int, size: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(len(data.digits), generator=generator)
        chosen, order = order[:size], order[size:]
        yield data.images[chosen], data.digits[chosen]
