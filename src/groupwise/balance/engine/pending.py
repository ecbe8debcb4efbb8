"""Gradients of micro-batches, by task, until the update that they belong to.

As with `backward`, gradients add up: a task's row is the gradient of the sum of its losses over the micro-batches, and
the losses that the method sees are these sums. Divide losses by their number where a mean is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import torch
from torch import Tensor

from groupwise.balance.engine.routes.route import OwnGradients
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import Rows, block_of


@final
class Pending:
    """Sums so far. `passes` counts the backwards that they cost; `begun`, whether there was a micro-batch at all."""

    def __init__(self) -> None:
        self.losses: dict[str, Tensor] = {}
        self.skipped: dict[str, str] = {}
        self.passes = 0
        self.begun = False
        self._rows: dict[str, dict[Tensor, Tensor]] = {}

    def __bool__(self) -> bool:
        return self.begun

    def add_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Add each loss to its task's sum."""
        self.begun = True
        for task, loss in losses.items():
            value = loss.detach().double()
            self.losses[task] = self.losses[task] + value if task in self.losses else value

    def add(self, losses: Mapping[str, Tensor], found: Iterable[tuple[str, Mapping[Tensor, Tensor]]]) -> None:
        """The losses of a micro-batch, and the gradients that one backward for each task finds."""
        self.add_losses(losses)
        for task, gradients in found:
            row = self._rows.setdefault(task, {})
            for leaf, gradient in gradients.items():
                row[leaf] = _added(row.get(leaf), gradient)
        self.passes += len(losses)

    @property
    def rows(self) -> Mapping[str, Mapping[Tensor, Tensor]]:
        """The sums of gradients by task."""
        return self._rows

    def settled(self, candidates: frozenset[Tensor] | None) -> Rowwise:
        """The sums as rows. What is moved into a block is let go, so the rows are there once."""
        tasks = [*self.losses]
        own = OwnGradients(self.losses)
        reach: dict[Tensor, set[int]] = {}
        for i, task in enumerate(tasks):
            for leaf in self._rows[task]:
                reach.setdefault(leaf, set()).add(i)
        needed = min(2, len(tasks))
        blocks, shared = [], {}
        for leaf, members in reach.items():
            gradients = {i: self._rows[tasks[i]].pop(leaf) for i in sorted(members)}
            if len(members) >= needed and (candidates is None or leaf in candidates):
                blocks.append(block_of(leaf, gradients, len(tasks)))
                shared[leaf] = members
            else:
                for i, gradient in gradients.items():
                    own.put(i, leaf, gradient)
        words = f"accumulated: {self.passes} backwards, one for each task of each micro-batch, added by task; exact"
        return Rowwise(Rows(len(tasks), blocks), shared, own, words)


def _added(sum_so_far: Tensor | None, gradient: Tensor) -> Tensor:
    if sum_so_far is None:
        return gradient.clone()  # autograd may give one tensor to two parameters
    if sum_so_far.layout == torch.strided and gradient.layout == torch.strided:
        return sum_so_far.add_(gradient)
    if sum_so_far.layout == gradient.layout:
        return sum_so_far + gradient
    return sum_so_far.to_dense() + gradient.to_dense()
