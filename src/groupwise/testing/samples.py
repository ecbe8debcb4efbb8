"""Gradients to hold methods against: what training shows, and what breaks a solver.

Every sample is a Jacobian [t, n] in float64, one row a task. They are drawn from a fixed seed, so a law that is broken
is broken on every machine; the names say what is particular about each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

SCALES = tuple(2.0**k for k in (-24, -9, 1, 24))


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """Gradients and losses [t] of some tasks; `cancels` where some positive weights make the gradients cancel."""

    name: str
    jacobian: Tensor
    losses: Tensor
    cancels: bool = False

    @property
    def scale(self) -> float:
        """The length of the longest gradient."""
        return float(self.jacobian.norm(dim=1).max())

    def scaled(self, by: float | Tensor) -> Sample:
        """The losses times a number or times a number [t] each, and so the gradients."""
        factors = torch.as_tensor(by, dtype=torch.float64).expand(len(self.losses))
        return Sample(f"{self.name}, scaled", factors[:, None] * self.jacobian, factors * self.losses, self.cancels)

    def rows(self, index: list[int]) -> Sample:
        """The tasks at `index`, in that order."""
        return Sample(self.name, self.jacobian[index], self.losses[index])

    def __str__(self) -> str:
        return f"the {self.name}, losses {self.losses.tolist()}, gradients {self.jacobian.tolist()}"


def regular() -> Iterator[Sample]:
    """Samples whose Gramian has full rank, in conflict or not."""
    generator = torch.Generator().manual_seed(7)
    yield _sample("two in conflict", [[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    yield _sample("two at right angles", [[3.0, 0.0], [0.0, 0.5]])
    yield _sample("two that agree", [[1.0, 2.0, 0.0], [2.0, 1.0, 1.0]])
    yield _sample("one task", [[0.3, -0.4, 1.2]])
    for t, n in ((2, 4), (3, 5), (4, 20), (6, 9)):
        drawn = torch.randn(t, n, generator=generator, dtype=torch.float64)
        yield _sample(f"{t} drawn at random", drawn.tolist())
    loud = torch.tensor([[1e-3], [1.0], [30.0]], dtype=torch.float64)
    yield _sample("one task much louder", (loud * torch.randn(3, 8, generator=generator, dtype=torch.float64)).tolist())


def degenerate() -> Iterator[Sample]:
    """Samples whose Gramian is singular: equal, opposite, parallel, zero and too many gradients."""
    yield _sample("two equal", [[1.0, -2.0, 0.5], [1.0, -2.0, 0.5]])
    yield _sample("two opposite", [[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5]], cancels=True)
    yield _sample("two opposite, one longer", [[1.0, -2.0, 0.5], [-3.0, 6.0, -1.5]], cancels=True)
    yield _sample("two opposite beside a third", [[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5], [2.0, 1.0, 1.0]])
    yield _sample("three that cancel", [[1.0, 0.0], [-0.5, 0.75], [-0.5, -0.75]], cancels=True)
    yield _sample("one gradient zero", [[0.0, 0.0, 0.0], [1.0, 2.0, -1.0], [0.5, -1.0, 1.0]])
    yield _sample("all gradients zero", [[0.0, 0.0], [0.0, 0.0]], cancels=True)
    yield _sample("one entry", [[2.0], [-0.5], [1.0]], cancels=True)
    yield _sample("five in a half-plane", [[1.0, 3.0], [1.0, 0.5], [2.0, -1.0], [0.25, -2.0], [1.0, 1.0]])


def samples() -> Iterator[Sample]:
    """All of them."""
    yield from regular()
    yield from degenerate()


def course(tasks: int, steps: int, seed: int = 9, entries: int = 7) -> Iterator[Sample]:
    """The steps of a run: gradients that turn, losses that fall at different rates."""
    generator = torch.Generator().manual_seed(seed)
    rates = torch.linspace(0.02, 0.2, tasks, dtype=torch.float64)
    base = torch.randn(tasks, entries, generator=generator, dtype=torch.float64)
    for step in range(steps):
        noise = torch.randn(tasks, entries, generator=generator, dtype=torch.float64)
        yield Sample(f"step {step} of a run", base + 0.7 * noise, (1.5 + rates) * torch.exp(-rates * step))


def _sample(name: str, rows: list[list[float]], cancels: bool = False) -> Sample:
    jacobian = torch.tensor(rows, dtype=torch.float64)
    return Sample(name, jacobian, torch.linspace(0.6, 1.8, len(rows), dtype=torch.float64), cancels)
