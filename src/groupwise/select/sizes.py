"""The sizes of what enters and leaves a part of a model, as far as its layers tell: what may feed what.

Layers are taken in order of registration, so this is a guess: it is asked only where two readings of a model compete.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from groupwise.select.tree import Node
from groupwise.select.vocabulary import embedding_kind, is_conv, is_linear, multiplies, norm_kind

_Size = int | None


def products_of(node: Node) -> list[Node]:
    """The layers below that multiply by a weight, in order of registration: dense, convolutional, recurrent."""
    own = [node] if node.held and is_product(node) else []
    return own + [layer for child in node.children if child.has_parameters for layer in products_of(child)]


def is_product(node: Node) -> bool:
    """Whether a layer multiplies by a weight of its own."""
    if embedding_kind(node.kinds) or norm_kind(node.kinds):
        return False
    if is_conv(node.kinds) or multiplies(node.kinds):
        return any(_says_weight(held.leaf) for held in node.held)
    return any(_says_weight(held.leaf) and len(held.tensor.shape) > 1 for held in node.held)


def sizes_of(node: Node) -> tuple[_Size, _Size]:
    """What one layer takes and gives; None where that is unknown."""
    if is_linear(node.kinds):
        return node.features
    weight: tuple[int, ...] = next((tuple(held.tensor.shape) for held in node.held if held.leaf == "weight"), ())
    if norm_kind(node.kinds) and len(weight) == 1:
        return int(weight[0]), int(weight[0])
    if "_ConvNd" in node.kinds and len(weight) > 2:
        swapped = any("Transpose" in kind for kind in node.kinds)
        return (int(weight[0]), None) if swapped else (None, int(weight[0]))
    return None, None


def is_chain(products: Sequence[Node]) -> bool:
    """Whether each of some layers takes what the one before it gives, as far as it is known."""
    sizes = [sizes_of(layer) for layer in products]
    return all(given is not None and given == taken for (_, given), (taken, _) in pairwise(sizes))


def entry_of(node: Node) -> _Size:
    """What its first layer takes."""
    if node.held and not node.children:
        return sizes_of(node)[0]
    first = next((child for child in node.children if child.has_parameters), None)
    return None if first is None else entry_of(first)


def exit_of(node: Node) -> _Size:
    """What its last layer gives."""
    if node.held and not node.children:
        return sizes_of(node)[1]
    last = next((child for child in reversed(node.children) if child.has_parameters), None)
    return None if last is None else exit_of(last)


def _says_weight(leaf: str) -> bool:
    return leaf.startswith(("weight", "kernel")) or leaf.endswith(("weight", "kernel", "proj", "_proj"))
