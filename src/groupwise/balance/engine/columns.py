"""Which parameters are the columns of a Jacobian, and under which names a method remembers them.

A parameter is a column once two tasks have shared it, for as long as it is there and trains: it is zero where nobody
reaches it. With `parameters=` its name is the one there. Without, it is its number in the order of first sight, which
the next process finds again by the order in which the graph shows the parameters. Nothing here keeps a parameter alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
        known: each with its name.
        count: how many had no name and got a number.
        order: the labels of the last walk of several tasks, in its order.
        resumed: those of the walk before a state was saved, until the first walk after it was loaded.
    """

    known: tuple[tuple[ref[Tensor], str], ...] = ()
    count: int = 0
    order: tuple[str, ...] = ()
    resumed: tuple[str, ...] = ()

    def seeing(self, shared: Sequence[Tensor], tasks: int, named: Named) -> Columns:
        """With what so many tasks share. A task that is alone tells nothing new about that."""
        if tasks < 2:
            return self
        if self.resumed and named is None:
            return self._resuming(shared)
        known = {there: name for there, name in self.known if there() is not None}
        fresh = [leaf for leaf in shared if ref(leaf) not in known]
        if named is None:
            known.update((ref(leaf), f"#{self.count + i}") for i, leaf in enumerate(fresh))
        else:
            chosen = set(fresh)
            known.update((ref(leaf), name) for name, leaf in named.items() if leaf in chosen)
        order = tuple(label_of(leaf, known[ref(leaf)]) for leaf in shared)
        return Columns(tuple(known.items()), self.count + len(fresh) * (named is None), order)

    def leaves(self, named: Named) -> dict[Tensor, str]:
        """The columns in order, with their labels: those that are there, train, and are among the named if any are."""
        allowed = None if named is None else set(named.values())
        found = ((there(), name) for there, name in self.known)
        return {
            leaf: label_of(leaf, name)
            for leaf, name in found
            if leaf is not None and leaf.requires_grad and (allowed is None or leaf in allowed)
        }

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
        numbers = [int(name[1:]) for name in names]
        known = tuple((ref(leaf), name) for leaf, name in zip(shared, names, strict=True))
        return Columns(known, max(numbers, default=-1) + 1, self.resumed)


def label_of(leaf: Tensor, name: str) -> str:
    """`name|shape|strides`: another shape is another thing to remember."""
    return f"{name}|{_spelled(leaf.shape)}|{_spelled(strides_of(leaf))}"


def _spelled(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))
