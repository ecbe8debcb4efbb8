"""Which parameters are the columns of a Jacobian, and under which names a method remembers them.

A parameter is a column once two tasks have shared it, for as long as it is there and trains: it is zero where nobody
reaches it. With `parameters=` its name is the one there. Without, it is its number in the order of first sight, which
the next process finds again by the order in which the graph shows the parameters. Parameters without names are held
weakly, and only for a method that remembers something of them: `torch.utils.swap_tensors` refuses what is held so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TypeAlias, final
from weakref import ref

from torch import Tensor

from groupwise.balance.engine.rows import strides_of
from groupwise.errors import BalanceError

Named: TypeAlias = "Mapping[str, Tensor] | None"


@final
@dataclass(frozen=True, eq=False)
class Columns:
    """All that were shared so far.

    Attributes:
        names: theirs; their order is that of `parameters=`.
        unnamed: those without a name of their own, by number.
        count: how many numbers were given.
        order: the labels of the last walk of several tasks, in its order.
        resumed: those of the walk before a state was saved, until the first walk after it was loaded.
    """

    names: frozenset[str] = frozenset()
    unnamed: tuple[tuple[ref[Tensor], str], ...] = ()
    count: int = 0
    order: tuple[str, ...] = ()
    resumed: tuple[str, ...] = ()

    def seeing(self, shared: Sequence[Tensor], tasks: int, named: Named) -> Columns:
        """With what so many tasks share. A task that is alone says nothing about that."""
        if tasks < 2:
            return self
        if named is not None:
            chosen = set(shared)
            return Columns(self.names.union(name for name, leaf in named.items() if leaf in chosen))
        if self.resumed:
            return self._resuming(shared)
        numbers = {there: name for there, name in self.unnamed if there() is not None}
        unknown = [leaf for leaf in shared if ref(leaf) not in numbers]
        numbers.update((ref(leaf), f"#{self.count + i}") for i, leaf in enumerate(unknown))
        order = tuple(label_of(leaf, numbers[ref(leaf)]) for leaf in shared)
        return Columns(frozenset(), tuple(numbers.items()), self.count + len(unknown), order)

    def leaves(self, named: Named) -> dict[Tensor, str]:
        """The columns in order, with their labels: those that are there and train."""
        found: Iterable[tuple[Tensor | None, str]] = ((there(), name) for there, name in self.unnamed)
        if named is not None:
            found = ((leaf, name) for name, leaf in named.items() if name in self.names)
        there = ((leaf, name) for leaf, name in found if leaf is not None and leaf.requires_grad)
        return {leaf: label_of(leaf, name) for leaf, name in there}

    def after_loading(self, order: Sequence[str]) -> Columns:
        """What goes on from a state whose last walk had these labels."""
        return replace(self, resumed=tuple(order))

    def _resuming(self, shared: Sequence[Tensor]) -> Columns:
        names = [label.partition("|")[0] for label in self.resumed]
        shapes = [label[len(name) :] for label, name in zip(self.resumed, names, strict=True)]
        if [label_of(leaf, "") for leaf in shared] != shapes:
            raise BalanceError(
                f"the state that was loaded remembers {len(names)} shared parameters by their order, and the tasks of "
                f"this batch share {len(shared)}, or others: start such a run with names, Balancer(parameters=model)"
            )
        numbers = sorted(zip((int(name[1:]) for name in names), shared, strict=True), key=itemgetter(0))
        unnamed = tuple((ref(leaf), f"#{number}") for number, leaf in numbers)
        return Columns(frozenset(), unnamed, numbers[-1][0] + 1, self.resumed)


def label_of(leaf: Tensor, name: str) -> str:
    """`name|shape|strides`: another shape is another thing to remember."""
    return f"{name}|{_spelled(leaf.shape)}|{_spelled(strides_of(leaf))}"


def _spelled(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))
