"""Sums over the entries of each group.

Whatever is known of a group is a function of a few sums over its entries: of g², of w², of Δ², of g·Δ. A sum over a
group is the sum over its tensors, and, where tensors are split, over the ranks. So a step collects vectors, one number
for each tensor; they travel together, once, and the host adds them up. Only what ranks exchange is added up before.
A CPU's numbers need not travel.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch

from groupwise.observe.tensors import precision


@final
class Sums:
    """Vectors by key, and for each number of them, which of `count` groups it belongs to.

    Args:
        count, device: the groups, and where the vectors are.
        exchanged: whether ranks are going to exchange the sums.

    Attributes:
        vectors: what has to travel, in its order.
    """

    def __init__(self, count: int, device: torch.device, exchanged: bool = False) -> None:
        self.vectors: list[torch.Tensor] = []
        self.count = count
        self.device = device
        self._at_hand = device.type == "cpu" and not exchanged
        self._parts: list[tuple[str, Sequence[int]]] = []
        self._known: list[tuple[str, list[float], Sequence[int]]] = []

    def add(self, key: str, values: torch.Tensor, index: Sequence[int], root: bool = False) -> list[float] | None:
        """Add [k] values to the row of `key`, each to the group that `index` names.

        Args:
            key, values, index: what is added, and where.
            root: whether the values are the roots of what is added: norms, of which squares are.

        Returns:
            The values, where they are at hand.
        """
        if not self._at_hand:
            values = values.to(precision(self.device))
            self.vectors.append(values.square() if root else values)
            self._parts.append((key, index))
            return None
        numbers: list[float] = values.tolist()
        self.add_known(key, [number * number for number in numbers] if root else numbers, index)
        return numbers

    def add_known(self, key: str, numbers: list[float], index: Sequence[int]) -> None:
        """Add numbers that are on the host already."""
        self._known.append((key, numbers, index))

    def reserve(self, keys: Iterable[str]) -> None:
        """Make sure of a row for each key: ranks must agree on what they exchange."""
        nothing = torch.zeros(0, device=self.device)
        for key in keys:
            self.add(key, nothing, ())

    def row(self, key: str) -> torch.Tensor:
        """The sums of one key by group, [count], on the device."""
        known = self._known_rows().get(key, [0.0] * self.count)
        row = torch.tensor(known, dtype=precision(self.device), device=self.device)
        for values, (name, index) in zip(self.vectors, self._parts, strict=True):
            if name == key:
                row.index_add_(0, _indices(tuple(index), self.device), values.to(row))
        return row

    def add_up(self) -> None:
        """Add up here what the host would: one number for each key, in their order, and group."""
        keys, groups = sorted({key for key, _ in self._parts}), range(self.count)
        self.vectors = [self.row(key) for key in keys]
        self._parts = [(key, groups) for key in keys]

    def rows(self, numbers: Sequence[float]) -> dict[str, list[float]]:
        """The sums by key, one for each group, with the numbers that travelled."""
        rows = self._known_rows()
        begin = 0
        for key, index in self._parts:
            _add(rows, key, numbers[begin : begin + len(index)], index, self.count)
            begin += len(index)
        return rows

    def _known_rows(self) -> dict[str, list[float]]:
        rows: dict[str, list[float]] = {}
        for key, numbers, index in self._known:
            _add(rows, key, numbers, index, self.count)
        return rows

    def __len__(self) -> int:
        """How many numbers travel."""
        return sum(len(index) for _, index in self._parts)


def _add(rows: dict[str, list[float]], key: str, numbers: Sequence[float], index: Sequence[int], count: int) -> None:
    row = rows.get(key)
    if row is None:
        row = rows[key] = [0.0] * count
    for i, number in zip(index, numbers, strict=True):
        row[i] += number


@functools.lru_cache(maxsize=64)
def _indices(index: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(index, dtype=torch.long, device=device)


def of_groups(rows: Mapping[str, Sequence[float]], count: int) -> list[dict[str, float]]:
    """The rows, by group."""
    return [{key: row[i] for key, row in rows.items()} for i in range(count)]
