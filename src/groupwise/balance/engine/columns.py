"""Which parameters are the columns of a Jacobian, and in what order: the same in every update.

A method that remembers rows needs its entries to stay where they are. So once two tasks have shared a parameter it
keeps its place, is zero where nobody reaches it, and what is shared later is added behind. Parameters that were named
(`parameters=`) come in their own order, whatever the first batch reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from torch import Tensor


@final
class Columns:
    """The order so far. `named` are the tensors of `parameters=`, in their order."""

    def __init__(self, named: Mapping[str, Tensor] | None) -> None:
        self._order = {} if named is None else {leaf: i for i, leaf in enumerate(named.values())}
        self._known: dict[Tensor, None] = {}

    def of(self, shared: Iterable[Tensor], tasks: int) -> tuple[Tensor, ...]:
        """The columns, of what so many tasks share. A task that is alone tells nothing new about that."""
        if tasks > 1:
            fresh = [leaf for leaf in shared if leaf not in self._known]
            self._known.update(dict.fromkeys(sorted(fresh, key=lambda leaf: self._order.get(leaf, 0))))
        return tuple(self._known)
