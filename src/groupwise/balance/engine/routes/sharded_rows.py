"""Rows of the joint batch where every rank has a part of each parameter (`fully_shard`).

A row is a task's parts. Inner products of rows are sums over parts,

    G = sum over ranks of G_rank          one message of t^2 + t numbers

and a combination of rows is the combination of their parts, so both are exact. A method that looks at single entries,
or draws for them, would see those of one rank alone: Jacobian methods are refused. A backward brings collectives of its
own, in an order that the graph gives, so every rank must have every task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from groupwise._spelling import counted
from groupwise.balance.engine.ranks.agreement import Ranks
from groupwise.balance.engine.ranks.parts import Parts
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import CHUNK, Rows


@final
class ShardedRows(Route):
    """Parts of rows, and of the task-only gradients."""

    def __init__(self, ranks: Ranks, parts: Parts, inner: Rowwise, passes: int) -> None:
        self._ranks = ranks
        self._parts = parts
        self._inner = inner
        self._count = inner.rows.count
        self._passes = passes
        self._reduced: Tensor | None = None

    @property
    def words(self) -> str:
        return (
            f"sequential: {self._passes} backwards, one for each task, averaged by fully_shard, whose parts on "
            f"{counted(self._ranks.group.size, 'rank')} are kept as rows; exact"
        )

    @property
    def rows(self) -> Rows:
        return self._inner.rows

    def gramian(self) -> Tensor:
        return self._facts()[: self._count**2].view(self._count, self._count)

    def task_specific_sums(self) -> Tensor:
        return self._facts()[self._count**2 :]

    def rescaled(self, table: Tensor) -> Tensor:
        return table

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        with self._parts.grads():
            self._inner.write(weights, own, kept)

    def _facts(self) -> Tensor:
        """The Gramian, then what `task_specific_sums` gives; the sums over the ranks."""
        if self._reduced is None:
            table = torch.zeros(self._count, self._count, dtype=torch.float64, device=self._ranks.like.device)
            for block in self.rows.blocks:
                table += products(block.matrix).to(table) / self._parts.copies(block.slots[0].leaf)
            largest = torch.zeros_like(table[0])
            for by_task in self._inner.own.found.values():
                for task, gradient in by_task.items():
                    if gradient.numel():
                        largest[task] += torch.linalg.vector_norm(gradient, math.inf).to(largest)
            self._reduced = self._ranks.group.add(torch.cat([table.flatten(), largest]))
        return self._reduced


def products(matrix: Tensor) -> Tensor:
    """[t, t] in float64 throughout: no square of a float32 leaves its range, so nothing is ever to be taken again."""
    total = torch.zeros(len(matrix), len(matrix), dtype=torch.float64, device=matrix.device)
    for piece in torch.split(matrix, CHUNK, dim=1):
        wide = piece.double()
        total += wide @ wide.mT
    return total
