"""The small networks that the audited programs are made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

X = torch.linspace(-1, 1, 24).reshape(6, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Classifier(nn.Module):
    """A stem, numbered blocks with norms, a head."""

    def __init__(self, blocks: int = 3, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()) for _ in range(blocks))
        self.head = nn.Linear(8, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))

    def loss(self) -> torch.Tensor:
        """A loss on the six examples."""
        return functional.cross_entropy(self(X), Y)


class Tasks(nn.Module):
    """One trunk, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.heads = nn.ModuleDict({"seg": nn.Linear(8, 3), "depth": nn.Linear(8, 1)})

    def losses(self, depth: float = 1.0) -> Mapping[str, torch.Tensor]:
        """A loss for each task, the second one weighted."""
        features = self.trunk(X)
        seg = functional.cross_entropy(self.heads["seg"](features), Y)
        return {"seg": seg, "depth": depth * self.heads["depth"](features).square().mean()}


def gan() -> nn.ModuleDict:
    """A generator and a critic, each with a norm that keeps running statistics."""
    generator = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return nn.ModuleDict({"generator": generator, "critic": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))})


def split(model: nn.Module, decay: float = 0.05) -> list[dict[str, object]]:
    """The two groups that everybody writes: matrices with decay, the rest without."""
    params = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def named(model: nn.Module, *prefixes: str) -> set[str]:
    """The names of the parameters under some prefixes."""
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
