"""Small trainings that a bench of runs is made of: a network, data, a loop, and what goes wrong in it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupwise.observe import Observer
from groupwise.records import Event, Writer, read
from groupwise.report.document import RunReport
from groupwise.report.sources import describe_run

EVERY = {"updates": 5, "weights": 5, "cosines": 2, "tasks": 5}
Hook = Callable[[int], None]
Losses = Callable[[], torch.Tensor | dict[str, torch.Tensor]]


def nothing(step: int) -> None:
    """Between steps, nothing."""


def mlp(
    depth: int = 2, width: int = 16, inputs: int = 8, outputs: int = 1, act: type[nn.Module] = nn.Tanh
) -> nn.Sequential:
    """Linear layers with something between them."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width if depth else inputs, outputs))


def regression(net: nn.Module, noise: float = 0.1, size: int = 32, factor: float = 1.0) -> Losses:
    """A loss on fresh data of a fixed smooth function."""

    def loss() -> torch.Tensor:
        x = torch.randn(size, 8)
        y = torch.sin(x[:, :1]) + 0.5 * x[:, 1:2] + noise * torch.randn(size, 1)
        return factor * (net(x) - y).square().mean()

    return loss


def classes(net: nn.Module, size: int = 32) -> Losses:
    """Cross-entropy on four clouds."""

    def loss() -> torch.Tensor:
        y = torch.randint(4, (size,))
        x = torch.randn(size, 8) + 2.0 * nn.functional.one_hot(y, 8)
        return nn.functional.cross_entropy(net(x), y)

    return loss


def train(
    optimizer: Any,
    loss: Losses,
    steps: int = 120,
    *,
    scheduler: Any = None,
    before: Hook = nothing,
    after: Hook = nothing,
    folder: Path | None = None,
    balancer: Any = None,
    task_shares: bool = False,
    finished: bool = True,
    every: Mapping[str, int] | int = EVERY,
    **options: Any,
) -> Path:
    """Train and record; where the run is."""
    where = folder or Path(tempfile.mkdtemp()) / "run"
    observer = Observer(optimizer, where, every=every, **options)
    for step in range(steps):
        optimizer.zero_grad()
        found = loss()
        if isinstance(found, dict) and balancer is not None:
            observer.log(balance=balancer.backward(found))
        else:
            if isinstance(found, dict):
                observer.tasks(found) if task_shares else observer.log(losses={k: v.detach() for k, v in found.items()})
                found = torch.stack(list(found.values())).sum()
            observer.log(loss=found.detach())
            found.backward()
        before(step)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        after(step)
    if finished:
        observer.close()
    else:
        observer._recorder.end(finished=False)
    return where


def noted(folder: Path, step: int, text: str) -> Path:
    """The run with a warning of the program's own."""
    header = read(folder).header
    with Writer(folder, header) as writer:
        writer.write(Event(step, "warning", text))
    return folder


def described(folder: Path) -> RunReport:
    """What the report says of the run."""
    return describe_run(read(folder), "run")


def first_words(report: RunReport, sentences: int = 3) -> str:
    """The summary and the first sentences of the verdict: what is read in a minute."""
    return " ".join([report.summary, *(f"{s.head}. {s.text}" for s in report.verdict[:sentences])])


def alarms(report: RunReport) -> Sequence[str]:
    """What the report wants somebody to look at."""
    return [f"{s.head}. {s.text}" for s in report.verdict if s.tone == "look"]
