"""Depth: how far a layer stands from the input, for any model.

People number the parts that form a stack: `blocks.0`, `layer1.0`, `encoder.layer.11`. So the levels 1…n are the
children of all *outermost* numbered containers, in module order, one after the other, if they carry parameters. What
comes before the first container is 0 (stem, embeddings, tables held by an enclosing module), what comes after the last
is n + 1 (final norm, head), and what stands between two belongs to the level just passed. Where nothing is numbered,
the order of the root's own children is all there is to go by. Linear time.
"""

from __future__ import annotations

from groupwise.select.tree import Node


def levels(root: Node) -> dict[str, int]:
    """Path of every layer to its level; a parameter has the level of the layer that holds it."""
    if not _numbered(root) and not any(map(_has_stack, root.children)):
        return _by_registration(root)
    passed: list[tuple[str, int]] = []
    top = end = 0

    def visit(node: Node, inside: bool) -> None:
        nonlocal top, end
        passed.append((node.path, top))
        stacked = not inside and _numbered(node)
        for child in node.children:
            top += stacked and child.has_parameters
            visit(child, inside or stacked)
        if stacked:
            end = len(passed)

    visit(root, False)
    return {path: level if i < end else top + 1 for i, (path, level) in enumerate(passed)}


def _numbered(node: Node) -> bool:
    children = node.children
    return any(child.has_parameters for child in children) and all(child.name.isdigit() for child in children)


def _has_stack(node: Node) -> bool:
    return _numbered(node) or any(map(_has_stack, node.children))


def _by_registration(root: Node) -> dict[str, int]:
    found = {root.path: 0}

    def paint(node: Node, level: int) -> None:
        found[node.path] = level
        for child in node.children:
            paint(child, level)

    for level, child in enumerate((child for child in root.children if child.has_parameters), start=1):
        paint(child, level)
    return found
