"""Training programs, good and bad, for `groupwise audit` to call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

X = torch.ones(3, 4)


def clean() -> tuple[nn.Module, SGD]:
    """Nothing to say."""
    model = nn.Linear(4, 2)
    return model, SGD(model.parameters(), lr=0.1)


def unscheduled() -> tuple[Any, ...]:
    """Losses, and nothing in the place of the schedulers."""
    model, optimizer = clean()
    return model, optimizer, None, lambda batch: model(batch).sum(), X


def lengthy() -> tuple[Any, ...]:
    """One thing too many."""
    return (*unscheduled(), None)


def headless() -> tuple[nn.Module, SGD, list[Any]]:
    """An optimizer that misses the head."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = SGD(model[0].parameters(), lr=0.1)
    return model, optimizer, [lr_scheduler.StepLR(optimizer, 5)]


def frozen() -> dict[str, Any]:
    """Only a note."""
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    return {"model": model, "optimizers": {"all": SGD(model.parameters(), lr=0.1)}}


def looping() -> dict[str, Any]:
    """A loop that clears nothing, and a function of losses that misses the first layer."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = SGD(model.parameters(), lr=0.01)

    def losses(batch: torch.Tensor) -> torch.Tensor:
        return model[1](model[0](batch).detach()).sum()

    def step() -> None:
        model(X).sum().backward()
        optimizer.step()

    return {"model": model, "optimizers": optimizer, "losses": losses, "batch": X, "step": step}


def stumbling() -> dict[str, Any]:
    """A loop that raises."""
    return looping() | {"step": lambda: X @ X}


def misshapen() -> dict[str, Any]:
    """Losses that raise."""
    return looping() | {"batch": X[:, :2]}


def modelless() -> dict[str, Any]:
    """No model."""
    return {"optimizers": clean()[1]}


def misspelt() -> dict[str, Any]:
    """An unknown key."""
    return {"model": clean()[0], "optimizer": clean()[1]}


def standing() -> dict[str, Any]:
    """A step that cannot be called."""
    return looping() | {"step": 3}


def lonely() -> nn.Module:
    """A model alone."""
    return clean()[0]


def swapped() -> tuple[SGD, nn.Module]:
    """In the wrong order."""
    model, optimizer = clean()
    return optimizer, model
