"""Depth: how far a layer stands from the input, guessed for any model from how its parts are registered.

People number the parts that form a stack: `blocks.0`, `layer1.0`, `encoder.layer.11`. So the levels 1…n are the
blocks of all outermost *stacks* (`stacks` says what is one), one after the other. What comes before the first is 0
(stem, embeddings), what comes after the last n + 1 (final norm, heads), and what stands between two belongs to the
level just passed; two products or more between two stacks are a level of their own (the middle of a U-Net).

Parts that do not feed each other do not stack: two towers stand side by side, and so do several heads. A frozen copy
(teacher, average) beside what trains has levels of its own, none above the top of what trains, and moves nobody
else's. A part of a model, as a stage of a pipeline holds it, keeps the numbers of its blocks, so where nothing stands
before the first stack its levels go on from its first number. Where nothing is numbered, the order of the children is
all there is to go by: one level each, a norm with the layer before it, heads together on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from groupwise.select.sizes import products_of
from groupwise.select.stacks import Stacks, feeds, is_norm, side_by_side
from groupwise.select.tree import Node


def levels(root: Node, heads: Iterable[str] = ()) -> dict[str, int]:
    """Path of every layer to its level; a parameter has the level of the layer that holds it."""
    counted = _Levels(Stacks(root, frozenset(heads)))
    if not counted.visit(root, 0, followed=False):
        counted = _by_registration(root, counted.stacks)
    highest = max(counted.found.values())
    return counted.found | {path: min(level, highest) for path, level in counted.beside.items()}


@final
@dataclass(slots=True)
class _Levels:
    """One walk through a tree. `base` is the level passed so far; every visit returns the level that it reached."""

    stacks: Stacks
    found: dict[str, int] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)  # levels in frozen copies
    entered: bool = False  # whether a parameter has been passed

    def visit(self, node: Node, base: int, followed: bool) -> int:
        if self.stacks.is_stack(node):
            return self._climb(node, base)
        if not self.stacks.has_stack(node):
            return self.paint(node, base)
        self.found[node.path] = base
        self.entered = self.entered or bool(node.held)
        top, passed = base, False
        turns = self._turns(node)
        for i, turn in enumerate(turns):
            later = followed or any(self.stacks.has_stack(n) for after in turns[i + 1 :] for n in after)
            if not self.stacks.has_stack(turn[0]):
                top = self._loose(turn[0], top, passed, later)
                continue
            top = max([self.visit(part, top, later) for part in turn])
            passed = True
        return top

    def paint(self, node: Node, level: int) -> int:
        """Give all of a part one level."""
        self.found[node.path] = level
        self.entered = self.entered or node.has_parameters
        for child in node.children:
            self.paint(child, level)
        return level

    def _turns(self, node: Node) -> list[list[Node]]:
        """The children, those that stand side by side together; a copy set aside is beside whatever comes first."""
        turns: list[list[Node]] = []
        for child in node.children:
            if self.stacks.is_aside(child):
                self.visit_aside(child)
                continue
            beside = [t for t in turns if self.stacks.has_stack(t[0]) and self.stacks.has_stack(child)]
            if beside and side_by_side(self.stacks, beside[-1][-1], child):
                beside[-1].append(child)
            else:
                turns.append([child])
        return turns

    def visit_aside(self, node: Node) -> None:
        """A frozen copy, counted on its own."""
        self.beside |= levels(node, self.stacks.heads)

    def _loose(self, node: Node, top: int, passed: bool, followed: bool) -> int:
        """A part that is no stack: a level of its own where it has two products and stands between stacks."""
        if followed:
            return self.paint(node, top + (passed and len(products_of(node)) > 1))
        self.paint(node, top + passed)
        return top

    def _climb(self, node: Node, base: int) -> int:
        self.found[node.path] = base
        if not self.entered:  # a part of a model that begins with block 8 has eight levels below it
            base = int(node.children[0].name)
        for child in node.children:
            base += child.has_parameters and not (base and is_norm(child))
            self.paint(child, base)
        return base


def _by_registration(root: Node, stacks: Stacks) -> _Levels:
    """One level for each part in order of registration, as far as they feed each other."""
    counted = _Levels(stacks)
    counted.paint(root, 0)
    level, before = 0, None
    for part in _parts_of(root):
        if stacks.is_aside(part):
            counted.visit_aside(part)
            continue
        if before is None or not (is_norm(part) or (stacks.is_head(before) and stacks.is_head(part))):
            level += before is None or feeds(before, part)
        counted.paint(part, level)
        before = before if is_norm(part) and before is not None else part
    return counted


def _parts_of(node: Node) -> list[Node]:
    """The children; in place of one that is nearly all of the model, its own."""
    inner = [child for child in node.children if child.has_parameters]
    amounts = [len(products_of(child)) for child in inner]
    for i, child in enumerate(inner):
        below = [part for part in child.children if part.has_parameters]
        alone = len(inner) == 1 and not node.held and below
        if alone or (len(below) > 2 and amounts[i] > 4 and amounts[i] * 5 > sum(amounts) * 4):
            return [*inner[:i], *_parts_of(child), *inner[i + 1 :]]
    return inner
