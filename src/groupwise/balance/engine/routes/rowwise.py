"""What a route that has the rows does with them: `.grad += J' w`, and the task-only gradients beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import final

from torch import Tensor

from groupwise.balance.engine import accumulate_grad
from groupwise.balance.engine.routes.route import Route, TaskSpecificGradients
from groupwise.balance.engine.rows import Rows, Update


@final
class Rowwise(Route):
    """Rows of the shared parameters, and everything else.

    Args:
        rows: the shared gradients.
        reach: for each shared tensor the tasks that have a gradient there.
        own: the task-only gradients.
        words: how they were got.
    """

    def __init__(self, rows: Rows, reach: Mapping[Tensor, set[int]], own: TaskSpecificGradients, words: str) -> None:
        self._rows = rows
        self._reach = reach
        self.own = own
        self._words = words

    @property
    def words(self) -> str:
        return self._words

    @property
    def rows(self) -> Rows:
        return self._rows

    @property
    def shared(self) -> tuple[Tensor, ...]:
        return self._rows.leaves

    @property
    def written(self) -> Iterable[Tensor]:
        return (*self._rows.leaves, *self.own.found)

    def task_specific_sums(self) -> Tensor:
        return self.own.sums()

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        accumulate_grad.add(self._reached(self._rows.gradients(weights), kept), owned=True)
        self.own.write(own, kept)

    def write_update(self, update: Iterable[Update], own: Tensor, kept: Sequence[int]) -> None:
        accumulate_grad.add(self._reached(update, kept))
        self.own.write(own, kept)

    def _reached(self, update: Iterable[Update], kept: Sequence[int]) -> Iterator[Update]:
        """Without what no kept task reaches."""
        allowed = set(kept)
        return ((leaf, piece) for leaf, piece in update if not allowed.isdisjoint(self._reach.get(leaf, ())))
