"""The job: two scans side by side; what is on the left, what is on the right, and what do they add up to?

One trunk and three tasks whose losses live on different scales: two cross-entropies that start near 2.3, and a squared
error on 0..18 that starts near 100. Nothing is downloaded: the 1,797 scans of 8 x 8 pixels come with scikit-learn
(`load_digits`, BSD-3). The scans are split *before* they are paired, so that no pair of the test shows a scan that any
pair of the training showed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from groupwise.errors import GroupwiseError

TASKS = ("left", "right", "sum")
TRAIN_SCANS = 1_300
TRAIN_PAIRS = 6_000
TEST_PAIRS = 2_000
_BRIGHTEST = 16.0


@dataclass(frozen=True)
class Scans:
    """Single digits: `images` [n, 8, 8] in 0..1 and their `digits` [n]."""

    images: torch.Tensor
    digits: torch.Tensor


@dataclass(frozen=True)
class Pairs:
    """Two digits in one picture: `images` [n, 1, 8, 16], the `targets` [n] by task, and their `scans` [n, 2]."""

    images: torch.Tensor
    targets: dict[str, torch.Tensor]
    scans: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, steps: int, generator: torch.Generator) -> Iterator[Pairs]:
        """Yield `steps` batches of `size` pairs, reshuffled whenever fewer than `size` are left of a shuffle."""
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < size:
                order = torch.randperm(len(self), generator=generator)
            chosen, order = order[:size], order[size:]
            yield self.take(chosen)

    def take(self, index: torch.Tensor) -> Pairs:
        """The pairs at `index`."""
        targets = {task: target[index] for task, target in self.targets.items()}
        return Pairs(self.images[index], targets, self.scans[index])


class Split(NamedTuple):
    """Pairs to learn from and pairs of unseen scans to be judged by."""

    train: Pairs
    test: Pairs


def load_scans() -> Scans:
    """All 1,797 scans; without scikit-learn a `GroupwiseError` that says how to get it."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise GroupwiseError(
            "the demo trains on scikit-learn's scans and scikit-learn is not installed; "
            'the way out: pip install "groupwise[demo]"'
        ) from error
    source = load_digits()
    images = torch.as_tensor(source.images, dtype=torch.float32) / _BRIGHTEST
    digits = torch.as_tensor(source.target, dtype=torch.long)
    return Scans(images, digits)


def split(
    scans: Scans, generator: torch.Generator, train_pairs: int = TRAIN_PAIRS, test_pairs: int = TEST_PAIRS
) -> Split:
    """1,300 scans for training, the unseen rest for the test, and pairs drawn within each."""
    order = torch.randperm(len(scans.digits), generator=generator)
    seen, unseen = order[:TRAIN_SCANS], order[TRAIN_SCANS:]
    return Split(_pairs(scans, seen, train_pairs, generator), _pairs(scans, unseen, test_pairs, generator))


def _pairs(scans: Scans, allowed: torch.Tensor, count: int, generator: torch.Generator) -> Pairs:
    first = torch.randint(len(allowed), (count,), generator=generator)
    further = torch.randint(1, len(allowed), (count,), generator=generator)  # never 0: no scan beside itself
    left, right = allowed[first], allowed[(first + further) % len(allowed)]
    images = torch.cat([scans.images[left], scans.images[right]], dim=2).unsqueeze(1)
    digits = {"left": scans.digits[left], "right": scans.digits[right]}
    total = (digits["left"] + digits["right"]).to(torch.float32)
    return Pairs(images, {**digits, "sum": total}, torch.stack([left, right], dim=1))
