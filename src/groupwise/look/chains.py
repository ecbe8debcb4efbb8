"""Depth from what depends on what: the longest chain of blocks that an input has gone through.

Blocks are the members of numbered containers, as far as these feed each other: a list of heads, experts or towers does
not. The outermost such container counts, unless only one of its members has blocks inside (stem, body, head). A block
has two products or more; where no container has such, a chain of layers counts, and without any the children of the
root. Parts without a number have the level of the last block that their input went through, one more if no block
follows (heads, final norms), or if they have two products or more between blocks (the middle of a U-Net). What is
frozen, and neither depends on what trains nor feeds it (a teacher), is never above the top of what trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from groupwise.look.flow import LOOKED_UP, Record
from groupwise.look.provenance import bits, indices
from groupwise.select import Node

_COLLECTIONS = {"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"}
_CELLS = {"RNNBase", "RNNCellBase"}


@final
@dataclass(frozen=True, slots=True)
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


@final
@dataclass(eq=False, slots=True)
class Unit:
    """What has one level: a block, a part without a number, or one parameter.

    Args:
        names: the parameters' names in its network.
        mask: those that were used, without tied ones where there are others.
        is_block: whether it is a member of a stack.
        products: how many of them a product multiplies by.
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
class Levels:
    """The levels of one network.

    Args:
        by_name: the level of every parameter that has one, by its name in the network.
        inner: parameters that are no heads though no product follows them: they lie in blocks of several products.
    """

    by_name: dict[str, int] = field(default_factory=dict)
    inner: int = 0


def levels_of(root: Node, dependence: Dependence) -> Levels:
    """The levels of one network, as far as its parameters were used."""
    found = Levels()
    structure = _Structure(dependence, bits(i for i, record in enumerate(dependence.records) if _counts(record)))
    stacks = structure.stacks(root)
    units = list(structure.units(root, stacks)) if stacks else list(structure.children(root))
    (_by_block if stacks else _by_child)(units)
    _cap_copies(units, dependence)
    for unit in units:
        found.by_name |= dict.fromkeys(unit.names, max(unit.level, 0))
    found.inner = structure.inner(root, stacks)
    return found


@final
@dataclass(slots=True)
class _Structure:
    """What of a tree is a stack, by what feeds what."""

    dependence: Dependence
    multiplied: int
    _masks: dict[int, int] = field(default_factory=dict)
    _reads: dict[int, bool] = field(default_factory=dict)

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
        return (self.mask(node) & self.multiplied).bit_count()

    def unit(self, node: Node, is_block: bool = False) -> Unit:
        """A part as one unit."""
        return self._unit(tuple(_names(node)), self.mask(node), is_block, node)

    def _unit(self, names: tuple[str, ...], mask: int, is_block: bool, node: Node | None) -> Unit:
        untied = mask & ~self.dependence.tied
        mask = untied or mask
        records = [self.dependence.records[i] for i in indices(mask)]
        above = 0
        for record in records:
            above |= record.above
        first = min((record.first for record in records), default=-1)
        return Unit(names, mask, is_block, (mask & self.multiplied).bit_count(), above, first, node)

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

    def stacks(self, root: Node) -> list[Node]:
        """The outermost stacks of blocks; without any, the chains of layers that end in no head, or all of them."""
        found = list(self._blocks(root))
        if found:
            return self._without_heads(found)
        chains = list(self._chains(root))
        return [node for node in chains if not self._ends(node)] or chains

    def _without_heads(self, found: list[Node]) -> list[Node]:
        """Without lists of one that end in a head, unless that one is of a class that others stack."""
        sure = [node for node in found if len(self.members(node)) > 1 or not self._ends(node)]
        kinds = {member.kinds[:1] for node in sure for member in self.members(node)}
        alike = [node for node in found if node in sure or {m.kinds[:1] for m in self.members(node)} <= kinds]
        return alike or found

    def _blocks(self, node: Node) -> Iterator[Node]:
        if self.reads_as_blocks(node):
            yield node
            return
        for child in node.children:
            yield from self._blocks(child)

    def holds_blocks(self, node: Node) -> bool:
        """Whether a stack of blocks is in it, itself included."""
        return any(True for _ in self._blocks(node))

    def reads_as_blocks(self, node: Node) -> bool:
        """A numbered container of blocks that feed each other."""
        if id(node) not in self._reads:
            self._reads[id(node)] = self._is_stack(node)
        return self._reads[id(node)]

    def _is_stack(self, node: Node) -> bool:
        members = self.members(node)
        if not _is_numbered(node) or not any(self.products(member) > 1 for member in members):
            return False
        if len(members) > 1 and not self.in_series(members):
            return False
        holding = [member for member in members if any(map(self.holds_blocks, [member]))]
        others = [member for member in members if member not in holding and self.products(member)]
        if not holding or not others:
            return True
        return len(holding) > 1 and {m.kinds[:1] for m in others} <= {m.kinds[:1] for m in holding}

    def _chains(self, node: Node) -> Iterator[Node]:
        """Numbered containers of layers that feed each other."""
        multiplying = [member for member in self.members(node) if self.products(member)]
        if _is_numbered(node) and len(multiplying) > 1 and self.in_series(multiplying):
            yield node
            return
        for child in node.children:
            yield from self._chains(child)

    def _ends(self, node: Node) -> bool:
        """Whether a product in it is followed by none."""
        mask = self.mask(node)
        after = 0
        for record in self.dependence.records:
            after |= record.above if record.multiplies else 0
        return bool(mask & self.multiplied & ~after)

    def inner(self, root: Node, stacks: Sequence[Node]) -> int:
        """The products of blocks with several, of which another of the same class is in the stack; of cells, too."""
        found = sum(self.dependence.own(node) for node in _layers(root) if _CELLS & set(node.kinds))
        for stack in stacks:
            members = self.members(stack)
            for member in members:
                alike = sum(other.kinds[:1] == member.kinds[:1] for other in members)
                if self.products(member) > 1 and (alike > 1 or len(members) == 1):
                    found |= self.mask(member)
        return found

    def units(self, node: Node, stacks: Sequence[Node]) -> Iterator[Unit]:
        """The blocks, and whatever stands beside or between them."""
        blocks = [self.unit(member, True) for stack in stacks for member in stack.children if member.has_parameters]
        yield from blocks
        yield from self._loose(node, stacks, blocks)

    def _loose(self, node: Node, stacks: Sequence[Node], blocks: Sequence[Unit]) -> Iterator[Unit]:
        if any(node is stack for stack in stacks):
            yield from self.own_units(node)
            return
        if self._is_split(node, stacks, blocks):
            yield from self.own_units(node)
            for child in node.children:
                yield from self._loose(child, stacks, blocks)
        elif node.has_parameters:
            yield self.unit(node)

    def _is_split(self, node: Node, stacks: Sequence[Node], blocks: Sequence[Unit]) -> bool:
        """Whether its parts stand for themselves: it has a stack inside, collects, or is used in several places."""
        if _COLLECTIONS & set(node.kinds) or any(_is_below(stack, node) for stack in stacks):
            return True
        unit = self.unit(node)
        return any(unit.above & block.mask and block.above & unit.mask for block in blocks)

    def children(self, root: Node) -> Iterator[Unit]:
        """Without numbers: the root's children; in place of one that is nearly all of the model, its own."""
        inner = [child for child in root.children if child.has_parameters]
        if not inner and _CELLS & set(root.kinds):
            yield self.unit(root)
            return
        yield from self.own_units(root)
        amounts = [self.products(child) for child in inner]
        for child, amount in zip(inner, amounts, strict=True):
            below = [part for part in child.children if part.has_parameters]
            alone = len(inner) == 1 and not root.held and bool(below)
            most = len(below) > 2 and amount > 4 and amount * 5 > sum(amounts) * 4
            if alone or most or _COLLECTIONS & set(child.kinds):
                yield from self.children(child)
            else:
                yield self.unit(child)


def _counts(record: Record) -> bool:
    """Whether a product multiplies by it; a table that is looked up as well has its place where that is done."""
    return record.multiplies and LOOKED_UP.isdisjoint(record.uses)


def _by_block(units: Sequence[Unit]) -> None:
    """Levels over blocks; parts without a number stand beside, between or above them."""
    blocks = [unit for unit in units if unit.is_block]
    between = [unit for unit in units if not unit.is_block and unit.products > 1]
    counting = [*blocks, *(unit for unit in between if any(block.depends(unit) for block in blocks))]
    for unit in sorted(units, key=lambda unit: unit.first):
        _level(unit, counting, blocks)
    _fill_blocks(units)


def _level(unit: Unit, counting: Sequence[Unit], blocks: Sequence[Unit]) -> int:
    if unit.level >= 0 or not unit.mask:
        return unit.level
    unit.level = 0  # while it is being counted
    base = max((_level(other, counting, blocks) for other in counting if unit.depends(other)), default=0)
    if unit.is_block:
        unit.level = base + 1 if unit.products or not base else base
    elif not base:
        unit.level = 0
    else:
        follows = any(block.depends(unit) for block in blocks)
        unit.level = base + (not follows or unit.products > 1)
    return unit.level


def _fill_blocks(units: Sequence[Unit]) -> None:
    """Blocks that were skipped have the level of the one before them."""
    before = 1
    for unit in units:
        if unit.is_block and unit.level < 0:
            unit.level = before
        before = unit.level if unit.is_block else before


def _by_child(units: Sequence[Unit]) -> None:
    """Levels over parts: one more than those that its input went through."""
    bare = sum(bool(unit.products) for unit in units) < 2 and all(unit.node is None for unit in units)
    only = bare or len(units) == 1
    for unit in sorted(units, key=lambda unit: unit.first):
        _child_level(unit, units, only)


def _child_level(unit: Unit, units: Sequence[Unit], only: bool) -> int:
    if unit.level >= 0 or not unit.mask:
        return unit.level
    unit.level = 0
    base = max((_child_level(other, units, only) for other in units if unit.depends(other)), default=0)
    counts = bool(unit.products) or (unit.node is not None and not base)
    unit.level = base + (counts and not only)
    return unit.level


def _cap_copies(units: Sequence[Unit], dependence: Dependence) -> None:
    """What is frozen and stands beside what trains is never above it."""
    training = [unit for unit in units if unit.mask & dependence.trains]
    if not training:
        return
    top = max(unit.level for unit in training)
    feeding, climbing = 0, 0
    for unit in training:
        feeding |= unit.above
        climbing |= unit.mask & dependence.trains if unit.level else 0
    for unit in units:
        apart = not unit.mask & (dependence.trains | feeding) and not unit.above & climbing
        unit.level = min(unit.level, top) if apart and climbing else unit.level


def _names(node: Node) -> Iterator[str]:
    for own in node.held:
        yield _joined(node.path, own.name)
    for child in node.children:
        yield from _names(child)


def _layers(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _layers(child)


def _joined(path: str, own: str) -> str:
    return f"{path}.{own}" if path and own else path or own


def _is_numbered(node: Node) -> bool:
    named: Iterable[str] = (child.name for child in node.children)
    return any(child.has_parameters for child in node.children) and all(map(str.isdigit, named))


def _is_below(stack: Node, node: Node) -> bool:
    return stack is node or any(_is_below(stack, child) for child in node.children)
