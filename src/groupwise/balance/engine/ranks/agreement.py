"""The processes of one group, and the one exchange with which every update begins.

All that decides which collectives follow has to be known to all: which tasks there are, whether a rank has none of
them, whether one cannot go on. So each rank says it in one vector, the sum is the same on all, bit by bit, and every
later decision is taken from that sum alone. No rank waits for one that went another way.

The vector also carries what has to be the same on all ranks (`marks`): a difference is an error on every rank that
names it. Its length is fixed, so ranks that know different tasks or parameters understand one another as well; what is
longer follows in a second message, once all are known to have the same length.

The order of everything is fixed: tasks by name, parameters as the module lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from groupwise._ranks import Group, by_rank, checksums, differing
from groupwise.balance.engine.ranks.parts import Parts
from groupwise.errors import BalanceError, listed

_FRESH, _IDLE, _REFUSED, _SPARSE, _FLAGS = range(5)
"""How many ranks have a task that is new, no task, an error, a sparse gradient; then where the marks begin."""

MARKS = ("call", "method", "constants", "arguments", "step", "epoch", "draws", "loaded state", "parameters", "tasks")
"""What has to be the same; the last is what each rank knows of tasks, which is exchanged anew where it differs."""

_HEADER = _FLAGS + 2 * len(MARKS)
_LENGTH = 2048
"""Of the first message."""

Reach: TypeAlias = Mapping[str, Collection[Tensor]]
"""The tensors that each task of a rank reaches."""

_FIRST = 3
"""A task's count, its loss and whether it is broken come first; then who reaches each parameter."""

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
        broken: the tasks whose gradient is not finite on some rank, without the scaler's scale.
    """

    tasks: tuple[str, ...]
    losses: dict[str, Tensor]
    counts: tuple[int, ...]
    reach: dict[Tensor, set[int]]
    idle: int
    sparse: bool
    broken: frozenset[str]


@final
class Ranks:
    """The processes of one group.

    Args:
        group: theirs, with its exchanges.
        leaves: gives the parameters that each has a copy of.
        parts: the parameters that each has a part of, under `fully_shard`; None where there are copies.

    Attributes:
        leaves: the copies that train at the moment.
        broken: the tasks of this rank whose gradient was found broken, which goes into the next exchange.
    """

    def __init__(self, group: Group, leaves: Callable[[], Iterable[Tensor]], parts: Parts | None = None) -> None:
        self.group = group
        self._all_leaves = leaves
        self.parts = parts
        self._names: list[str] = []
        self.leaves: list[Tensor] = []
        self.broken: frozenset[str] = frozenset()
        self._marks: Mapping[str, str] = {}

    def begin(self, marks: Mapping[str, str]) -> None:
        """Begin a call: look at the parameters anew, and remember what is to be compared with the other ranks."""
        self.leaves = [parameter for parameter in self._all_leaves() if parameter.requires_grad]
        self.broken = frozenset()
        if self.parts is not None:
            self.parts.begin()
        held = self.leaves if self.parts is None else self.parts.whole
        entries = sum(parameter.numel() for parameter in held)
        self._marks = {**marks, "parameters": f"{len(held)} with {entries:,} entries"}

    @property
    def like(self) -> Tensor:
        """A tensor on the device on which messages travel."""
        return self.leaves[0] if self.parts is None else self.parts.like

    def agree(self, losses: Mapping[str, Tensor], reach: Reach = NOWHERE, sparse: bool = False) -> Agreement:
        """Exchange which tasks there are, their losses and what they reach: one reduction, more when a task is new.

        Raises `BalanceError`, on every rank, if one of them refused its batch, if none has a task, or if they differ in
        what has to be the same.
        """
        found = self._summed(losses, reach, sparse)
        self._require_all(found)
        other = differing(MARKS, found[_FLAGS:_HEADER], self.group.size)
        if wrong := [name for name in other if name != "tasks"]:
            raise BalanceError(
                self._difference([name for name in wrong if name != "constants" or "method" not in wrong])
            )
        if found[_FRESH] or other:
            known = self.group.gather([*self._names, *losses])
            self._names = sorted({name for names in known for name in names})
            found = self._summed(losses, reach, sparse)
        return self._read(found)

    def _difference(self, names: list[str]) -> str:
        """What differs, with the ranks that have each; the same text on every rank."""
        found = self.group.gather([self._texts()[MARKS.index(name)] for name in names])
        by_name = zip(names, zip(*found, strict=True), strict=True)
        parts = (f"{name}: {', '.join(by_rank(dict(enumerate(texts))))}" for name, texts in by_name)
        return f"the ranks are not balancing the same way; {'; '.join(parts)}"

    def refuse(self) -> None:
        """Answer an `agree` of the other ranks with an error."""
        self.group.add(self._header(_REFUSED).to(self.like.device))

    def _texts(self) -> list[str]:
        return [self._marks.get(name, "") if name != "tasks" else repr(self._names) for name in MARKS]

    def _header(self, *flags: int) -> Tensor:
        """[2048] the first message, without tasks."""
        header = torch.zeros(_LENGTH, dtype=torch.float64)
        header[[*flags]] = 1.0
        header[_FLAGS:_HEADER] = torch.tensor(checksums(self._texts()), dtype=torch.float64)
        return header

    @property
    def _width(self) -> int:
        return _FIRST + len(self.leaves)

    def _summed(self, losses: Mapping[str, Tensor], reach: Reach, sparse: bool) -> list[float]:
        """The header; then a row of the table for each known task."""
        flags = {_FRESH: any(task not in self._names for task in losses), _IDLE: not losses, _SPARSE: sparse}
        header = self._header(*(place for place, said in flags.items() if said))
        table = self._table(losses, reach)
        if _HEADER + table.numel() <= _LENGTH:
            first = header.to(self.like.device)
            first[_HEADER : _HEADER + table.numel()] = table.flatten()
            return [float(number) for number in self.group.add(first).tolist()]
        found = [float(number) for number in self.group.add(header.to(self.like.device)).tolist()]
        if found[_REFUSED] or differing(MARKS, found[_FLAGS:_HEADER], self.group.size):
            return found
        return found[:_HEADER] + [float(number) for number in self.group.add(table.flatten()).tolist()]

    def _table(self, losses: Mapping[str, Tensor], reach: Reach) -> Tensor:
        """[known tasks, width] on the device of the messages."""
        table = torch.zeros(len(self._names), self._width, dtype=torch.float64)
        here = [(i, task) for i, task in enumerate(self._names) if task in losses]
        for i, task in here:
            mine = set(reach.get(task, ()))
            row = [1.0, 0.0, float(task in self.broken), *(float(leaf in mine) for leaf in self.leaves)]
            table[i] = torch.tensor(row)
        moved = table.to(self.like.device)
        for i, task in here:
            moved[i, 1] = losses[task].detach()
        return moved

    def _require_all(self, found: list[float]) -> None:
        size = self.group.size
        if found[_REFUSED]:
            some = f"{found[_REFUSED]:.0f} of {size} ranks"
            raise BalanceError(f"{some} could not go on with their batch; their errors say why")
        if found[_IDLE] == size:
            raise BalanceError(f"no task on any of {size} ranks: losses may be empty on some, but not on all")

    def _read(self, found: list[float]) -> Agreement:
        count = len(self._names) * self._width
        table = torch.tensor(found[_HEADER : _HEADER + count], dtype=torch.float64).view(-1, self._width)
        here = [i for i in range(len(self._names)) if table[i, 0] > 0]
        tasks = tuple(self._names[i] for i in here)
        means = (table[here, 1] / table[here, 0]).to(self.like.device).unbind()
        reached = {
            leaf: {place for place, i in enumerate(here) if table[i, _FIRST + column] > 0}
            for column, leaf in enumerate(self.leaves)
        }
        return Agreement(
            tasks,
            dict(zip(tasks, means, strict=True)),
            tuple(int(table[i, 0]) for i in here),
            {leaf: places for leaf, places in reached.items() if places},
            int(found[_IDLE]),
            found[_SPARSE] > 0,
            frozenset(self._names[i] for i in here if table[i, 2] > 0),
        )


def require_everywhere(ranks: Ranks, agreed: Agreement, why: str, instead: str) -> None:
    """Raise `BalanceError`, on every rank, for a task that some rank lacks."""
    pairs = zip(agreed.tasks, agreed.counts, strict=True)
    partly = [f"{task!r} (on {count} of {ranks.group.size})" for task, count in pairs if count < ranks.group.size]
    if partly:
        raise BalanceError(
            f"{why}, every rank needs every task; missing on some: {listed(partly)}; use batches that have them all, "
            f"or {instead}"
        )


@contextmanager
def propagated(ranks: Ranks | None) -> Iterator[None]:
    """Inside, an error on this rank reaches the others, which wait to agree."""
    done = False
    try:
        yield
        done = True
    finally:
        if ranks is not None and not done:
            ranks.refuse()
