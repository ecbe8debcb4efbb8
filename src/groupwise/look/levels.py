"""Depth from what depends on what: the longest chain of blocks that an input has gone through.

Parts without a number have the level of the last block that their input went through, one more if no block follows
(heads, final norms), or if they have two products or more between blocks (the middle of a U-Net). A product whose input
went through no block (a conditioning, a gate) stands below the first block that takes what it gives, and on top if none
does; tables and tokens are at the input. What is frozen, and neither depends on what trains nor feeds it (a teacher),
is never above the top of what trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

from groupwise.look.chains import Structure
from groupwise.look.dependence import Dependence, Parts, Unit
from groupwise.select import Node


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
    structure = Structure(Parts(dependence))
    stacks = structure.stacks(root)
    units = structure.units(root, stacks)
    (_by_block if stacks else _by_child)(units)
    _cap_copies(units, dependence)
    for unit in units:
        found.by_name |= dict.fromkeys(unit.names, max(unit.level, 0))
    found.inner = structure.inner(root, stacks)
    return found


@final
@dataclass(slots=True)
class _Ladder:
    """Levels in order of first use.

    `rungs` are the parameters of what counts, by level; `waiting` are those of what has no level yet.
    """

    counting: Sequence[Unit]
    level_above: Callable[[Unit, int], int]
    rungs: list[int] = field(default_factory=list)
    waiting: int = 0

    def climb(self, units: Iterable[Unit]) -> None:
        """Give each its level: what it is worth above the highest that it depends on."""
        counts = set(map(id, self.counting))
        for unit in self.counting:
            self.waiting |= unit.mask
        for unit in sorted(units, key=lambda unit: unit.first):
            self._place(unit, counts)

    def _place(self, unit: Unit, counts: set[int]) -> None:
        if unit.level >= 0 or not unit.mask:
            return
        unit.level = 0  # while it is being counted
        if unit.above & self.waiting & ~unit.mask:  # it was used before something that it depends on, and again later
            for other in self.counting:
                if other.level < 0 and unit.depends(other):
                    self._place(other, counts)
        unit.level = self.level_above(unit, self._highest(unit))
        if id(unit) in counts:
            self.waiting &= ~unit.mask
            self.rungs += [0] * (unit.level + 1 - len(self.rungs))
            self.rungs[unit.level] |= unit.mask

    def _highest(self, unit: Unit) -> int:
        above = unit.above & ~unit.mask
        return next((level for level in reversed(range(len(self.rungs))) if self.rungs[level] & above), 0)


def _by_block(units: Sequence[Unit]) -> None:
    """Levels over blocks; parts without a number stand beside, between or above them."""
    blocks = [unit for unit in units if unit.is_block]
    feeding = 0
    for block in blocks:
        feeding |= block.above & ~block.mask

    def follows(unit: Unit) -> bool:
        return bool(feeding & unit.mask) and any(block.depends(unit) for block in blocks)

    def level(unit: Unit, base: int) -> int:
        if unit.is_block:
            return base + 1 if unit.products or not base else base
        return base + (not follows(unit) or unit.products > 1) if base else 0

    between = [unit for unit in units if not unit.is_block and unit.products > 1 and follows(unit)]
    _Ladder([*blocks, *between], level).climb(units)
    _fill_blocks(units)
    _raise_late_products(units)


def _fill_blocks(units: Sequence[Unit]) -> None:
    """Blocks that were skipped have the level of the one before them."""
    before = 1
    for unit in units:
        if unit.is_block and unit.level < 0:
            unit.level = before
        before = unit.level if unit.is_block else before


def _raise_late_products(units: Sequence[Unit]) -> None:
    """Products that depend on no block stand right below the first that takes what they give."""
    top = max(unit.level for unit in units)
    for unit in units:
        if not unit.is_block and unit.products and not unit.level:
            takers = [other for other in units if other is not unit and other.depends(unit)]
            unit.level = min((max(other.level - other.is_block, 0) for other in takers), default=top)


def _by_child(units: Sequence[Unit]) -> None:
    """Levels over parts: one more than those that their input went through."""
    bare = sum(bool(unit.products) for unit in units) < 2 and all(unit.node is None for unit in units)
    only = bare or len(units) == 1

    def level(unit: Unit, base: int) -> int:
        counts = bool(unit.products) or (unit.node is not None and not base)
        return base + (counts and not only)

    _Ladder(units, level).climb(units)


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
