"""Gramians that a solver must survive: of every kind that training makes, and of some that it does not."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Rows = Callable[[int, torch.Generator], Tensor]


def _normal(k: int, n: int, g: torch.Generator) -> Tensor:
    return torch.randn(k, n, generator=g, dtype=torch.float64)


def _near(k: int, g: torch.Generator) -> Tensor:
    """Nearly one direction: what is left of the Gramian after it are the last digits."""
    return _normal(1, 2 * k, g) + 1e-7 * _normal(k, 2 * k, g)


def _twins(k: int, g: torch.Generator) -> Tensor:
    return _normal(k, k + 3, g)[torch.randint(0, k, (k,), generator=g)]


def _opposite(k: int, g: torch.Generator) -> Tensor:
    half = _normal(k, k + 3, g)[: (k + 1) // 2]
    return torch.cat([half, -half])[:k]


def _stationary(k: int, g: torch.Generator) -> Tensor:
    """Positive multiples of the rows add up to zero."""
    rows = _normal(k, k + 3, g)
    weights = torch.rand(k, generator=g, dtype=torch.float64) + 0.1
    return rows - (weights @ rows) / weights.sum()


def _nearly_stationary(k: int, g: torch.Generator) -> Tensor:
    return _stationary(k, g) + 1e-6 * _normal(1, k + 3, g)


def _with_zeros(k: int, g: torch.Generator) -> Tensor:
    return _normal(k, k, g) * (torch.rand(k, 1, generator=g) < 0.7)


def _spread(k: int, g: torch.Generator) -> Tensor:
    return _normal(k, 2 * k, g) * 10 ** (16 * torch.rand(k, 1, generator=g, dtype=torch.float64) - 8)


def _spread_low_rank(k: int, g: torch.Generator) -> Tensor:
    return _normal(k, max(1, k // 3), g) * 10 ** (16 * torch.rand(k, 1, generator=g, dtype=torch.float64) - 8)


KINDS: Mapping[str, Rows] = {
    "many parameters": lambda k, g: _normal(k, 50 * k, g),
    "square": lambda k, g: _normal(k, k, g),
    "few parameters": lambda k, g: _normal(k, max(1, k // 4), g),
    "two parameters": lambda k, g: _normal(k, 2, g),
    "rank one": lambda k, g: _normal(k, 1, g),
    "all in conflict": lambda k, g: _normal(k, 4 * k, g) - 3 * _normal(k, 4 * k, g).mean(0) * k**0.5,
    "all agree": lambda k, g: _normal(k, 4 * k, g) + 2 * _normal(1, 4 * k, g),
    "nearly one direction": _near,
    "twins": _twins,
    "opposites": _opposite,
    "stationary": _stationary,
    "nearly stationary": _nearly_stationary,
    "zero rows": _with_zeros,
    "scales from 1e-8 to 1e8": _spread,
    "the same, of low rank": _spread_low_rank,
    "very small": lambda k, g: 2.0**-24 * _normal(k, 2 * k, g),
    "very large": lambda k, g: 2.0**24 * _normal(k, 2 * k, g),
}

SIZES = {1: 4, 2: 30, 3: 30, 5: 20, 8: 12, 16: 5, 32: 2, 64: 1}
"""How many of each kind, by the number of rows."""


def gramians(kind: str, sizes: Mapping[int, int] | None = None) -> Iterator[Tensor]:
    """Gramians of one kind, in every size."""
    generator = torch.Generator().manual_seed(sum(map(ord, kind)))
    for k, times in (SIZES if sizes is None else sizes).items():
        for _ in range(times):
            rows = KINDS[kind](k, generator)
            yield rows @ rows.T


def positive_gramians(kind: str) -> Iterator[Tensor]:
    """Those without their zero rows."""
    for gramian in gramians(kind):
        present = gramian.diagonal() > 0
        if bool(present.any()):
            yield gramian[present][:, present]
