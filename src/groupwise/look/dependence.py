"""The parts of a model as a run showed them: what each used, and which takes what another gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from groupwise.look.flow import LOOKED_UP, Record
from groupwise.look.provenance import bits, indices
from groupwise.select import Node


@final
@dataclass(frozen=True)
class Dependence:
    """What a run showed, by parameter; `of` is from the identity of a tensor to its index."""

    records: Sequence[Record]
    of: Mapping[int, int]
    trains: int
    tied: int

    def own(self, node: Node) -> int:
        """The parameters that a layer holds itself and that were used."""
        held = (self.of[id(own.tensor)] for own in node.held)
        return bits(i for i in held if self.records[i].first >= 0)

    @cached_property
    def multiplied(self) -> int:
        """What counts as a product; a table that is looked up as well has its place where that is done."""
        return bits(i for i, r in enumerate(self.records) if r.multiplies and LOOKED_UP.isdisjoint(r.uses))

    @cached_property
    def followed(self) -> int:
        """What some product's input depended on."""
        found = 0
        for record in self.records:
            found |= record.above if record.multiplies else 0
        return found


@final
@dataclass(eq=False, slots=True)
class Unit:
    """What has one level: a block, a part without a number, or one parameter.

    Args:
        names: the parameters' names in its network.
        mask: those that were used, without tied ones where there are others.
        is_block: whether it is a member of a stack.
        products: how many of them a product multiplies by.
        above: what their inputs depended on.
        first: the place of the first of them in the order of use.
    """

    names: tuple[str, ...]
    mask: int
    is_block: bool
    products: int
    above: int
    first: int
    node: Node | None = None
    level: int = -1

    def depends(self, other: Unit) -> bool:
        """Whether its input has gone through another; of two that do, the one that was used later."""
        if not self.above & other.mask & ~self.mask:
            return False
        return not other.above & self.mask & ~other.mask or other.first < self.first


@final
@dataclass(slots=True)
class Parts:
    """The parts of one tree."""

    dependence: Dependence
    _masks: dict[int, int] = field(default_factory=dict)

    def mask(self, node: Node) -> int:
        """The used parameters of a part."""
        if id(node) not in self._masks:
            found = self.dependence.own(node)
            for child in node.children:
                found |= self.mask(child)
            self._masks[id(node)] = found
        return self._masks[id(node)]

    def products(self, node: Node) -> int:
        """How many products a part has."""
        return (self.mask(node) & self.dependence.multiplied).bit_count()

    def ends(self, node: Node) -> bool:
        """Whether a product in it is followed by none."""
        return bool(self.mask(node) & self.dependence.multiplied & ~self.dependence.followed)

    def unit(self, node: Node, is_block: bool = False) -> Unit:
        """A part as one unit."""
        return self._unit(tuple(names_in(node)), self.mask(node), is_block, node)

    def own_units(self, node: Node) -> Iterator[Unit]:
        """Each parameter that a part holds itself."""
        for own in node.held:
            i = self.dependence.of[id(own.tensor)]
            mask = 1 << i if self.dependence.records[i].first >= 0 else 0
            yield self._unit((_joined(node.path, own.name),), mask, False, None)

    def members(self, node: Node) -> list[Node]:
        """The used children, each once."""
        found: dict[int, Node] = {}
        for child in node.children:
            if self.mask(child):
                found.setdefault(self.mask(child), child)
        return list(found.values())

    def in_series(self, members: Sequence[Node]) -> bool:
        """Whether some member takes what another gives."""
        units = [self.unit(member) for member in members]
        return any(one.depends(other) for one in units for other in units if one is not other)

    def _unit(self, names: tuple[str, ...], mask: int, is_block: bool, node: Node | None) -> Unit:
        untied = mask & ~self.dependence.tied
        mask = untied or mask
        records = [self.dependence.records[i] for i in indices(mask)]
        above = 0
        for record in records:
            above |= record.above
        first = min((record.first for record in records), default=-1)
        products = (mask & self.dependence.multiplied).bit_count()
        return Unit(names, mask, is_block, products, above, first, node)


def layers(node: Node) -> Iterator[Node]:
    """A part, and whatever is in it."""
    yield node
    for child in node.children:
        yield from layers(child)


def names_in(node: Node) -> Iterator[str]:
    """The names of its parameters, from the root of the network."""
    return (_joined(layer.path, own.name) for layer in layers(node) for own in layer.held)


def _joined(path: str, own: str) -> str:
    return f"{path}.{own}" if path and own else path or own
