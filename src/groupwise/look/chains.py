"""Stacks: the blocks that feed each other, which are the levels of a model.

Blocks are the members of numbered containers, as far as these feed each other: a list of heads, experts or towers does
not. The outermost such container counts, unless only one of its members has blocks inside (stem, body, head). A block
has two products or more. Where no container has such, several chains of the same kinds of layers are blocks themselves
(the stages of a U-Net that are attributes), else the layers of a chain count, if it does not end in a head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from groupwise.look.dependence import Parts, Unit, layers
from groupwise.select import Node

_COLLECTIONS = {"ModuleList", "ModuleDict", "ParameterList", "ParameterDict"}
_CELLS = {"RNNBase", "RNNCellBase"}


@final
@dataclass(slots=True)
class Structure:
    """What of a tree is a stack, by what feeds what."""

    parts: Parts
    _reads: dict[int, bool] = field(default_factory=dict)
    _holds: dict[int, bool] = field(default_factory=dict)

    def stacks(self, root: Node) -> list[list[Node]]:
        """The members of the outermost stacks of blocks; without any, chains or their layers."""
        found = list(self._blocks(root))
        if found:
            return [_with_parameters(node) for node in self._without_heads(found)]
        chains = list(self._chains(root))
        inner = [node for node in chains if not self.parts.ends(node)]
        if self._are_blocks(inner):
            return [inner]
        return [_with_parameters(node) for node in inner or chains]

    def _are_blocks(self, chains: Sequence[Node]) -> bool:
        """Whether chains are made alike and feed each other, as blocks do."""
        made = {node.path: tuple(child.kinds[:1] for child in node.children) for node in chains}
        often = {kinds for kinds, count in Counter(made.values()).items() if count > 1}
        return any(self.parts.in_series([n for n in chains if made[n.path] == kinds]) for kinds in often)

    def _without_heads(self, found: list[Node]) -> list[Node]:
        """Without lists of one that end in a head, unless that one is of a class that others stack."""
        sure = [node for node in found if len(self.parts.members(node)) > 1 or not self.parts.ends(node)]
        kinds = {member.kinds[:1] for node in sure for member in self.parts.members(node)}
        alike = [node for node in found if node in sure or {m.kinds[:1] for m in self.parts.members(node)} <= kinds]
        return alike or found

    def _blocks(self, node: Node) -> Iterator[Node]:
        if self._reads_as_blocks(node):
            yield node
            return
        for child in node.children:
            yield from self._blocks(child)

    def _holds_blocks(self, node: Node) -> bool:
        """Whether a stack of blocks is in it, itself included."""
        if id(node) not in self._holds:
            self._holds[id(node)] = self._reads_as_blocks(node) or any(map(self._holds_blocks, node.children))
        return self._holds[id(node)]

    def _reads_as_blocks(self, node: Node) -> bool:
        """A numbered container of blocks that feed each other."""
        if id(node) not in self._reads:
            self._reads[id(node)] = self._is_stack(node)
        return self._reads[id(node)]

    def _is_stack(self, node: Node) -> bool:
        if not _is_numbered(node):
            return False
        members = self.parts.members(node)
        if not any(self.parts.products(member) > 1 for member in members):
            return False
        if len(members) > 1 and not self.parts.in_series(members):
            return False
        holding = [member for member in members if self._holds_blocks(member)]
        others = [member for member in members if member not in holding and self.parts.products(member)]
        if not holding or not others:
            return True
        return len(holding) > 1 and {m.kinds[:1] for m in others} <= {m.kinds[:1] for m in holding}

    def _chains(self, node: Node) -> Iterator[Node]:
        """Numbered containers of layers that feed each other."""
        if _is_numbered(node):
            multiplying = [member for member in self.parts.members(node) if self.parts.products(member)]
            if len(multiplying) > 1 and self.parts.in_series(multiplying):
                yield node
                return
        for child in node.children:
            yield from self._chains(child)

    def inner(self, root: Node, stacks: Sequence[Sequence[Node]]) -> int:
        """The products of blocks with several, of which another of the same class is in the stack; of cells, too."""
        own = self.parts.dependence.own
        found = sum(own(node) for node in layers(root) if _CELLS & set(node.kinds))
        for stack in stacks:
            members = {self.parts.mask(member): member for member in stack if self.parts.mask(member)}
            kinds = Counter(member.kinds[:1] for member in members.values())
            for mask, member in members.items():
                if self.parts.products(member) > 1 and (kinds[member.kinds[:1]] > 1 or len(members) == 1):
                    found |= mask
        return found

    def units(self, root: Node, stacks: Sequence[Sequence[Node]]) -> list[Unit]:
        """The blocks, and whatever stands beside or between them; without stacks, the children of the root."""
        if not stacks:
            return list(self._children(root))
        blocks = {id(member): self.parts.unit(member, True) for stack in stacks for member in stack}
        return [*blocks.values(), *self._loose(root, blocks, _around(root, blocks))]

    def _loose(self, node: Node, blocks: dict[int, Unit], around: set[int]) -> Iterator[Unit]:
        if id(node) in blocks or not node.has_parameters:
            return
        if id(node) in around or _COLLECTIONS & set(node.kinds) or self._is_recurrent(node, blocks.values()):
            yield from self.parts.own_units(node)
            for child in node.children:
                yield from self._loose(child, blocks, around)
        else:
            yield self.parts.unit(node)

    def _is_recurrent(self, node: Node, blocks: Iterable[Unit]) -> bool:
        """Whether it is used in several places, before and after the same block."""
        unit = self.parts.unit(node)
        return any(unit.above & block.mask and block.above & unit.mask for block in blocks)

    def _children(self, root: Node) -> Iterator[Unit]:
        """Without numbers: the root's children; in place of one that is nearly all of the model, its own."""
        inner = [child for child in root.children if child.has_parameters]
        if not inner and _CELLS & set(root.kinds):
            yield self.parts.unit(root)
            return
        yield from self.parts.own_units(root)
        amounts = [self.parts.products(child) for child in inner]
        for child, amount in zip(inner, amounts, strict=True):
            below = _with_parameters(child)
            alone = len(inner) == 1 and not root.held and bool(below)
            most = len(below) > 2 and amount > 4 and amount * 5 > sum(amounts) * 4
            if alone or most or _COLLECTIONS & set(child.kinds):
                yield from self._children(child)
            else:
                yield self.parts.unit(child)


def _with_parameters(node: Node) -> list[Node]:
    return [child for child in node.children if child.has_parameters]


def _around(node: Node, blocks: dict[int, Unit]) -> set[int]:
    """The parts that have a block below them."""
    found: set[int] = set()

    def visit(part: Node) -> bool:
        if id(part) in blocks:
            return True
        below = [visit(child) for child in part.children]
        if any(below):
            found.add(id(part))
        return any(below)

    visit(node)
    return found


def _is_numbered(node: Node) -> bool:
    named: Iterable[str] = (child.name for child in node.children)
    return any(child.has_parameters for child in node.children) and all(map(str.isdigit, named))
