"""Sums over the entries of each group, on the device.

Whatever is known of a group is a function of a few sums over its entries: of g², of w², of Δ², of g·Δ. A sum over a
group is the sum over its tensors, and, where tensors are split, over the ranks. So a step collects one row of n numbers
for each sum, and all rows travel together, once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch

from groupwise.observe.tensors import precision


@final
class Sums:
    """Rows of sums: by key, one number for each of `count` groups."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.rows: dict[str, torch.Tensor] = {}
        self.count = count
        self.device = device

    def add(self, key: str, values: torch.Tensor, index: Sequence[int]) -> None:
        """Add [k] values to the row of `key`, each to the group that `index` names."""
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = torch.zeros(self.count, dtype=precision(self.device), device=self.device)
        row.index_add_(0, _indices(tuple(index), self.device), values.to(row))

    def reserve(self, keys: Iterable[str]) -> None:
        """Make sure of a row for each key: ranks must agree on what they exchange."""
        for key in keys:
            self.add(key, torch.zeros(0, device=self.device), ())


@functools.lru_cache(maxsize=64)
def _indices(index: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(index, dtype=torch.long, device=device)


def of_groups(rows: Mapping[str, Sequence[float]], count: int) -> list[dict[str, float]]:
    """The rows, by group."""
    return [{key: row[i] for key, row in rows.items()} for i in range(count)]
