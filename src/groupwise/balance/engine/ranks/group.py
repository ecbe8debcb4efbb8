"""The processes of one group, and the one exchange with which every update begins.

All that decides which collectives follow has to be known to all: which tasks there are, whether a rank has none of
them, whether one cannot go on. So each rank says it in one vector, the sum is the same on all, bit by bit, and every
later decision is taken from that sum alone. No rank waits for one that went another way.

The order of everything is fixed: tasks by name, parameters as the module lists them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor
from torch import distributed as dist

from groupwise.balance.engine.ranks.parts import Parts
from groupwise.errors import BalanceError, GroupwiseError, listed

_FRESH, _IDLE, _REFUSED, _SPARSE, _HEADER = range(5)
"""How many ranks have a task that is new, no task, an error, a sparse gradient; then where the tasks begin."""

Reach: TypeAlias = Mapping[str, Collection[Tensor]]
"""The tensors that each task of a rank reaches."""

NOWHERE: Reach = {}
"""The same, where nobody has walked the graph."""


@final
@dataclass(frozen=True, eq=False)
class Agreement:
    """What all ranks know of one batch.

    Attributes:
        tasks: those that some rank has, by name.
        losses: the mean of each over the ranks that have it, as 0-dim tensors on the device.
        counts: how many ranks have each.
        reach: for each parameter the tasks (their places) that reach it on some rank.
        idle: how many ranks have no task at all.
        sparse: whether some rank has sparse gradients.
    """

    tasks: tuple[str, ...]
    losses: dict[str, Tensor]
    counts: tuple[int, ...]
    reach: dict[Tensor, set[int]]
    idle: int
    sparse: bool


@final
class Ranks:
    """The processes of one group.

    Args:
        group: theirs.
        leaves: the parameters that each has a copy of.
        parts: the parameters that each has a part of, under `fully_shard`; None where there are copies.
    """

    def __init__(self, group: Any, leaves: Iterable[Tensor], parts: Parts | None = None) -> None:
        self._group = group
        self.leaves = [parameter for parameter in leaves if parameter.requires_grad]
        self.parts = parts
        self._names: list[str] = []
        self.size = dist.get_world_size(group)

    @property
    def like(self) -> Tensor:
        """A tensor on the device on which messages travel."""
        return self.leaves[0] if self.parts is None else self.parts.like

    def agree(self, losses: Mapping[str, Tensor], reach: Reach = NOWHERE, sparse: bool = False) -> Agreement:
        """Exchange which tasks there are, their losses and what they reach: one reduction, two when a task is new.

        Raises `BalanceError`, on every rank, if one of them refused its batch or none has a task.
        """
        found = self._summed(losses, reach, sparse)
        self._require_all(found)
        if found[_FRESH]:
            gathered: list[list[str]] = [[] for _ in range(self.size)]
            dist.all_gather_object(gathered, [*losses], group=self._group)
            self._names = sorted({*self._names, *(name for names in gathered for name in names)})
            found = self._summed(losses, reach, sparse)
        return self._read(found)

    def refuse(self) -> None:
        """Answer an `agree` of the other ranks with an error."""
        self.add(self._vector(_REFUSED).to(self.like.device))

    def add(self, numbers: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        dist.all_reduce(numbers, group=self._group)
        return numbers

    def add_all(self, pieces: Mapping[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The sums of what belongs to some parameters, one message for each device and dtype."""
        families: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for leaf in pieces:
            families.setdefault((leaf.device, leaf.dtype), []).append(leaf)
        for leaves in families.values():
            flat = self.add(torch.cat([pieces[leaf].flatten() for leaf in leaves]))
            for leaf, piece in zip(leaves, torch.split(flat, [leaf.numel() for leaf in leaves]), strict=True):
                yield leaf, piece.view(leaf.shape)

    def _vector(self, *flags: int) -> Tensor:
        vector = torch.zeros(_HEADER + self._width * len(self._names), dtype=torch.float64)
        vector[[*flags]] = 1.0
        return vector

    @property
    def _width(self) -> int:
        return 2 + len(self.leaves)

    def _summed(self, losses: Mapping[str, Tensor], reach: Reach, sparse: bool) -> list[float]:
        """The header; then for each known task its count, its sum, and how many ranks reach each parameter."""
        known = {name: _HEADER + i * self._width for i, name in enumerate(self._names)}
        told = {_FRESH: any(task not in known for task in losses), _IDLE: not losses, _SPARSE: sparse}
        vector = self._vector(*(place for place, said in told.items() if said))
        here = losses.keys() & known.keys()
        for task in here:
            mine, start = set(reach.get(task, ())), known[task]
            vector[start : start + self._width] = torch.tensor(
                [1.0, 0.0, *(float(leaf in mine) for leaf in self.leaves)]
            )
        moved = vector.to(self.like.device)
        for task in here:
            moved[known[task] + 1] = losses[task].detach()
        return [float(number) for number in self.add(moved).tolist()]

    def _require_all(self, found: list[float]) -> None:
        if found[_REFUSED]:
            raise BalanceError(
                f"{found[_REFUSED]:.0f} of {self.size} ranks could not go on with their batch; their errors say why"
            )
        if found[_IDLE] == self.size:
            raise BalanceError(f"no task on any of {self.size} ranks: losses may be empty on some, but not on all")

    def _read(self, found: list[float]) -> Agreement:
        table = torch.tensor(found[_HEADER:], dtype=torch.float64).view(len(self._names), self._width)
        here = [i for i in range(len(self._names)) if table[i, 0] > 0]
        tasks = tuple(self._names[i] for i in here)
        means = (table[here, 1] / table[here, 0]).to(self.like.device).unbind()
        reached = {
            leaf: {place for place, i in enumerate(here) if table[i, 2 + column] > 0}
            for column, leaf in enumerate(self.leaves)
        }
        return Agreement(
            tasks,
            dict(zip(tasks, means, strict=True)),
            tuple(int(table[i, 0]) for i in here),
            {leaf: places for leaf, places in reached.items() if places},
            int(found[_IDLE]),
            found[_SPARSE] > 0,
        )


def require_everywhere(ranks: Ranks, agreed: Agreement, why: str, instead: str) -> None:
    """Raise `BalanceError`, on every rank, for a task that some rank lacks."""
    pairs = zip(agreed.tasks, agreed.counts, strict=True)
    partly = [f"{task!r} (on {count} of {ranks.size})" for task, count in pairs if count < ranks.size]
    if partly:
        raise BalanceError(
            f"{why}, every rank needs every task; missing on some: {listed(partly)}; use batches that have them all, "
            f"or {instead}"
        )


@contextmanager
def telling(ranks: Ranks | None) -> Iterator[None]:
    """Tell the other ranks, which wait to agree, of an error on this one."""
    try:
        yield
    except GroupwiseError:
        if ranks is not None:
            ranks.refuse()
        raise
