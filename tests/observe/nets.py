"""A small net with a sparse table, two dense parts and a frozen one, and the programs that train it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.observe import Observer
from groupwise.records import Run, read

ALL = {"values": 1, "gradients": 1, "weights": 1, "cosines": 1, "updates": 1, "tasks": 1}
"""Everything at every step."""


class Net(nn.Module):
    """Words to two numbers."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 6, sparse=sparse)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.left, self.right = nn.Linear(8, 1), nn.Linear(8, 1)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.body(self.embed(words))
        return self.left(hidden), self.right(hidden)


def net(sparse: bool = False) -> Net:
    """The net, always the same."""
    torch.manual_seed(0)
    return Net(sparse)


def losses(model: nn.Module, step: int) -> dict[str, torch.Tensor]:
    """Two tasks on a batch that is the step's own."""
    made = torch.Generator().manual_seed(step)
    words = torch.randint(0, 30, (16,), generator=made)
    left, right = model(words)
    return {"left": (left - 1).square().mean(), "right": (right - words[:, None] / 10).square().mean()}


def groups(model: Net) -> list[dict[str, Any]]:
    """Groups with names for a plain optimizer."""
    return [
        {"params": [*model.embed.parameters(), *model.body.parameters()], "name": "trunk"},
        {"params": [*model.left.parameters(), *model.right.parameters()], "name": "heads", "lr": 0.02},
        {"params": list(model.frozen.parameters()), "name": "frozen"},
    ]


def plan(clip: float | None = 0.3) -> Plan:
    """Three algorithms, two clip scopes."""
    scope = clip_norm(clip) if clip else None
    return Plan(
        [
            Rule("*", label="base", optimizer="AdamW", lr=1e-2, weight_decay=0.1, clip=scope),
            Rule("embed.*", optimizer="SparseAdam", lr=2e-2, weight_decay=0.0, clip=scope and clip_norm(0.05)),
            Rule(["left.*", "right.*"], label="heads", optimizer="SGD", lr=0.05, momentum=0.9, weight_decay=0.01),
            Rule("frozen.*", trainable=False),
        ],
        clip=clip_norm(0.2) if clip else None,
    )


def grouped(clip: float | None = 0.3) -> tuple[Net, GroupedOptimizer]:
    """The net under the plan."""
    model = net(sparse=True)
    return model, GroupedOptimizer(model, plan(clip))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    observer: Observer,
    steps: int,
    before: Callable[[Mapping[str, torch.Tensor]], object] = lambda losses: None,
) -> None:
    """A plain loop."""
    for step in range(steps):
        optimizer.zero_grad()
        told = losses(model, step)
        before(told)
        loss = sum(told.values(), torch.zeros(()))
        loss.backward()
        observer.log(loss=loss)
        optimizer.step()


def recorded(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, steps: int = 4, **given: Any) -> Run:
    """The run of a plain loop."""
    with Observer(optimizer, folder, **{"every": ALL, **given}) as observer:
        train(model, optimizer, observer, steps)
    return read(folder)
