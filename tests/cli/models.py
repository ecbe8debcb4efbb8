"""Model factories, good and bad, for the command line to call."""

import sys
import warnings
from collections.abc import Mapping

import torch
from torch import nn


class Tiny(nn.Module):
    """Two blocks between a stem and a head, with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


tiny = Tiny()


def build() -> nn.Module:
    """A function."""
    return Tiny()


def on_meta() -> nn.Module:
    """A model that costs no memory."""
    with torch.device("meta"):
        return Tiny()


def networks() -> Mapping[str, nn.Module | nn.Parameter]:
    """A mapping, with a lone parameter."""
    return {"student": nn.Linear(2, 2), "teacher": nn.Linear(2, 2), "temperature": nn.Parameter(torch.zeros(()))}


def many() -> nn.Module:
    """About ten thousand tensors, without memory."""
    with torch.device("meta"):
        layers = [nn.ModuleList([nn.LayerNorm(2), *(nn.Linear(2, 2) for _ in range(103))]) for _ in range(48)]
        return nn.ModuleDict({"stem": nn.Linear(2, 2), "blocks": nn.ModuleList(layers), "head": nn.Linear(2, 2)})


def bare() -> nn.Module:
    """No parameters at all."""
    return nn.ReLU()


def frozen() -> nn.Module:
    """Parameters, none of which trains."""
    return Tiny().requires_grad_(False)


def broken() -> nn.Module:
    """Raises inside torch."""
    return nn.Linear(3, "four")  # type: ignore[arg-type]


def leaves() -> nn.Module:
    """Ends the program, as a script without a main guard does."""
    sys.exit(0)


def interrupted() -> nn.Module:
    """The person loses patience."""
    raise KeyboardInterrupt


def garrulous() -> nn.Module:
    """Raises an error of many lines."""
    raise RuntimeError("first line\n\tsecond line\x1b[31m")


def warns() -> nn.Module:
    """Builds a model and warns."""
    warnings.warn("this factory\nis old", UserWarning, stacklevel=1)
    return Tiny()


def needy(width: int, depth: int = 2) -> nn.Module:
    """Takes an argument."""
    return nn.Linear(width, depth)


def nothing() -> None:
    """Forgot to return."""


class Zoo:
    """A factory inside a class."""

    @staticmethod
    def build() -> nn.Module:
        """Reached by a dotted name."""
        return Tiny()


def tied() -> Mapping[str, nn.Module]:
    """Two networks that share a weight."""
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    teacher.weight = student.weight
    return {"student": student, "teacher": teacher}


class Backwards(nn.Module):
    """Layers that are registered in another order than they are used in, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.spare = nn.Linear(4, 2), nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.last(self.first(x))
        return logits


EXAMPLE = torch.ones(2, 3)


def make_example() -> tuple[torch.Tensor]:
    """Arguments."""
    return (EXAMPLE,)


def run_on_example(model: nn.Module) -> torch.Tensor:
    """A loss."""
    loss: torch.Tensor = model(EXAMPLE).sum()
    return loss
