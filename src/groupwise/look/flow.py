"""What a run shows of each parameter: its uses, and which others its input depended on.

Order is that of first use. A parameter depends on those alone that were used before it, so reuse, recurrence, ties and
outputs that are fed back make no circle; what no product multiplies by depends on what its first use did. A product is
followed by another whose input it went into; a head is followed by none. What comes out as whole numbers (a chosen
token, a routing) is an answer, and what it is used for follows no head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

from groupwise.look.provenance import Forms, Value, bits, indices

Use: TypeAlias = Literal[
    "matrix", "stack", "wide", "vector", "conv", "conv bias", "embedding", "rows", "token", "table", "norm",
    "norm shift", "bias", "scale",
]  # fmt: skip
"""What was done with a parameter.

A product by a `matrix`, by a `stack` of them, by a tensor of more dimensions read as one (`wide`), or by a `vector`;
`rows` are gathered by index, and from an `embedding` by the operation of that name; a `token` stands beside the data,
a `table` is added to it and differs from place to place.
"""

PRODUCTS: frozenset[Use] = frozenset({"matrix", "stack", "wide", "vector", "conv"})

LOOKED_UP: frozenset[Use] = frozenset({"embedding", "rows"})
"""Uses of a table, which has its place where rows are looked up, whatever else it is used for."""


@final
@dataclass(slots=True)
class Record:
    """What is known of one parameter. Sets of parameters are bits.

    Args:
        shape: its sizes.
        network: the parameters of its network.
        uses: each use, with the operation that showed it first.
        opaque: an operation that used it and tells nothing.
        first: its place in the order of first use; below zero, never.
        earlier: the parameters that were used before it.
        multiplied_after: those that were used before its first product; below zero, it has none.
        above: the parameters that its input depended on.
        beside: of the product that it was added to, the parameters.
        recurs: whether it was multiplied by what it had itself given.
        gives: how many features its product gave.
        chosen_by: the parameters whose scores chose what it multiplied, or weighted what it gave.
    """

    shape: tuple[int, ...]
    network: int = 0
    uses: dict[Use, str] = field(default_factory=dict)
    opaque: str = ""
    first: int = -1
    earlier: int = 0
    multiplied_after: int = -1
    above: int = 0
    beside: int = 0
    recurs: bool = False
    gives: int = 0
    chosen_by: int = 0

    @property
    def sides(self) -> int:
        """How many of its dimensions are longer than one."""
        return sum(size != 1 for size in self.shape)

    @property
    def numel(self) -> int:
        """How many entries it has."""
        return math.prod(self.shape)

    @property
    def multiplies(self) -> bool:
        """Whether a product multiplies by it."""
        return not PRODUCTS.isdisjoint(self.uses)


@final
@dataclass(slots=True)
class Flow:
    """The records of all parameters of one run."""

    records: Sequence[Record]
    used: int = 0
    products: int = 0
    followed: int = 0
    operation: str = ""
    _owners: dict[Forms, int] = field(default_factory=dict)

    def owners(self, forms: Forms) -> int:
        """Whose weights these are: a running average of others' is that of the parameters first used in it."""
        if forms not in self._owners:
            made_of = [i for i, how in forms if how != "statistic"]
            self._owners[forms] = bits(i for i in made_of if self.records[i].first < 0) or bits(made_of)
        return self._owners[forms]

    def use(self, chosen: Iterable[int], use: Use, data: Value) -> None:
        """Parameters were used in one way, on `data`."""
        for i in self._met(chosen, data):
            self.records[i].uses.setdefault(use, self.operation)

    def opaquely(self, chosen: Iterable[int], data: Value) -> None:
        """An operation used parameters and does not say how."""
        for i in self._met(chosen, data):
            self.records[i].opaque = self.records[i].opaque or self.operation

    def multiply(self, chosen: Iterable[int], use: Use, data: Value, gives: int = 0) -> None:
        """A product multiplied `data` by a parameter, which gave so many features."""
        before = self.used
        for i in self._met(chosen, data):
            record = self.records[i]
            if LOOKED_UP.isdisjoint(record.uses):
                record.above |= data.sources & record.earlier
            record.uses.setdefault(use, self.operation)
            record.recurs = record.recurs or bool(data.last >> i & 1)
            record.gives = record.gives or gives
            record.chosen_by |= data.chosen
            if record.multiplied_after < 0:
                record.multiplied_after = before
            self.products |= 1 << i
            self.followed |= data.products & record.multiplied_after & record.network

    def add(self, chosen: Iterable[int], use: Use, data: Value) -> None:
        """Parameters were added to `data`."""
        for i in self._met(chosen, data):
            self.records[i].uses.setdefault(use, self.operation)
            self.records[i].beside |= data.last

    def weigh(self, products: int, scores: int) -> None:
        """What some products gave was weighted by chosen scores."""
        for i in indices(products):
            self.records[i].chosen_by |= scores & ~(1 << i)

    def look_up(self, chosen: Iterable[int], index: Value) -> None:
        """Rows were taken of a table. Where the table's own scores chose them, it is a codebook, and no head."""
        for i in chosen:
            if self.records[i].multiplied_after >= 0 and LOOKED_UP.isdisjoint(self.records[i].uses):
                self.followed |= index.sources & 1 << i

    def _met(self, chosen: Iterable[int], data: Value) -> list[int]:
        found = list(chosen)
        earlier = self.used
        for i in found:
            record = self.records[i]
            if record.first < 0:
                record.first, record.earlier = self.used.bit_count(), earlier
                record.above = data.sources & earlier
                self.used |= 1 << i
        return found

    @property
    def heads(self) -> int:
        """The products that no other of their network follows, and that do not recur."""
        recurring = bits(i for i, record in enumerate(self.records) if record.recurs)
        return self.products & ~self.followed & ~recurring


def merged(flows: Sequence[Flow]) -> Flow:
    """Several runs of one model as one: each shows what the others skipped."""
    best = max(flows, key=lambda flow: flow.used.bit_count())
    for flow in flows:
        if flow is not best:
            for record, other in zip(best.records, flow.records, strict=True):
                record.first = other.first + len(best.records) if record.first < 0 <= other.first else record.first
                record.uses = other.uses | record.uses
                record.opaque = record.opaque or other.opaque
                record.above, record.beside = record.above | other.above, record.beside | other.beside
                record.recurs = record.recurs or other.recurs
                record.gives, record.chosen_by = record.gives or other.gives, record.chosen_by | other.chosen_by
            best.used, best.products = best.used | flow.used, best.products | flow.products
            best.followed |= flow.followed
    return best
