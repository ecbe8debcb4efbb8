"""Sums over the entries of each group.

Whatever is known of a group is a function of a few sums over its entries: of g², of w², of Δ², of g·Δ. A sum over a
group is the sum over its tensors, and, where tensors are split, over the ranks. So a step collects vectors, one number
for each tensor; they travel together, once, and the host adds them up. Only what ranks exchange is added up before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch

from groupwise.observe.tensors import precision


@final
class Sums:
    """Vectors by key, and for each number of them, which of `count` groups it belongs to."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.parts: list[tuple[str, torch.Tensor, Sequence[int]]] = []
        self.count = count
        self.device = device

    def add(self, key: str, values: torch.Tensor, index: Sequence[int]) -> None:
        """Add [k] values to the row of `key`, each to the group that `index` names."""
        self.parts.append((key, values, index))

    def reserve(self, keys: Iterable[str]) -> None:
        """Make sure of a row for each key: ranks must agree on what they exchange."""
        nothing = torch.zeros(0, device=self.device)
        self.parts += [(key, nothing, ()) for key in keys]

    def row(self, key: str) -> torch.Tensor:
        """The sums of one key by group, [count], on the device."""
        row = torch.zeros(self.count, dtype=precision(self.device), device=self.device)
        for name, values, index in self.parts:
            if name == key:
                row.index_add_(0, _indices(tuple(index), self.device), values.to(row))
        return row

    def add_up(self) -> None:
        """Add up here what the host would: one number for each key, in their order, and group."""
        keys, groups = sorted({key for key, _, _ in self.parts}), range(self.count)
        self.parts = [(key, self.row(key), groups) for key in keys]

    def rows(self, numbers: Sequence[float]) -> dict[str, list[float]]:
        """The sums by key, one for each group, from the numbers of all parts, one after the other."""
        rows: dict[str, list[float]] = {}
        begin = 0
        for key, values, index in self.parts:
            row = rows.get(key)
            if row is None:
                row = rows[key] = [0.0] * self.count
            for i, number in zip(index, numbers[begin : begin + len(values)], strict=True):
                row[i] += number
            begin += len(values)
        return rows

    def __len__(self) -> int:
        return sum(len(values) for _, values, _ in self.parts)


@functools.lru_cache(maxsize=64)
def _indices(index: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(index, dtype=torch.long, device=device)


def of_groups(rows: Mapping[str, Sequence[float]], count: int) -> list[dict[str, float]]:
    """The rows, by group."""
    return [{key: row[i] for key, row in rows.items()} for i in range(count)]
