"""The job of every program: scikit-learn's digits, a network of four layers, batches in a fixed order.

Each program trains for some epochs and hands back the weights. What is compared is the program, so all else is here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

PLAN = Path(__file__).with_name("plan.toml")
EPOCHS, BATCH, TRAINED_ON = 5, 64, 1280
UPDATES = TRAINED_ON // BATCH
"""In an epoch."""


class Net(nn.Module):
    """Pixels [n, 64] and labels [n] to the loss and the logits [n, 10], as Hugging Face's models do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(64, 48)
        self.blocks = nn.ModuleList([nn.Linear(48, 48) for _ in range(2)])
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, 10)

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        x = self.stem(pixels).tanh()
        for block in self.blocks:
            x = block(x).tanh()
        logits = self.head(self.norm(x))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Digits(Dataset[dict[str, Tensor]]):
    """The 1,280 scans to train on, in an order that was drawn once, or the 517 others."""

    def __init__(self, unseen: bool = False) -> None:
        scans = load_digits()
        order = torch.randperm(len(scans.target), generator=torch.Generator().manual_seed(0))
        chosen = order[TRAINED_ON:] if unseen else order[:TRAINED_ON]
        self.pixels = (torch.as_tensor(scans.data, dtype=torch.float32) / 8 - 1)[chosen]
        self.labels = torch.as_tensor(scans.target, dtype=torch.int64)[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"pixels": self.pixels[i], "labels": self.labels[i]}


@torch.no_grad()
def score(weights: Mapping[str, Tensor]) -> tuple[float, float]:
    """The mean loss over the scans that were trained on, and how many per cent of the others are named right."""
    net, seen, unseen = Net(), Digits(), Digits(unseen=True)
    net.load_state_dict(weights)
    right = net(unseen.pixels, unseen.labels)["logits"].argmax(1) == unseen.labels
    return net(seen.pixels, seen.labels)["loss"].item(), 100 * right.float().mean().item()


def run(train: Callable[[int], Mapping[str, Tensor] | None]) -> None:
    """The command line of every program. `train(epochs)` gives the weights, or None where another process does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, help="where the weights go")
    given = parser.parse_args()
    torch.set_num_threads(1)
    weights = train(given.epochs)
    if weights is not None:
        loss, right = score(weights)
        sys.stdout.write(f"loss {loss:.6f}, {right:.1f} % of unseen scans right\n")
        if given.out is not None:
            torch.save(dict(weights), given.out)
