"""Heads: the linear layers that nothing follows.

Read the tree from its end. As long as only linear layers are met, they form the trailing run; the first layer of
another kind that carries parameters closes it. Within the run, a layer whose output size is the input size of a later
one feeds it, so it is no head: of `Linear → ReLU → Linear` only the last remains, of three heads side by side each. A
module's own parameters beside its layers have no place in the order, so they close nothing. The members of a
`ModuleDict` stand side by side by convention, so none of them feeds another, and each is read from its own end (unless
one of them ends in something else: then the dictionary is just a way to name a sequence).

It is a proposal: a model says nothing about what its `forward` does last. `roles={"head": …}` overrules it.
"""

from __future__ import annotations

from groupwise.select.tree import Node
from groupwise.select.vocabulary import is_linear

_Sizes = frozenset[int]


def heads(root: Node) -> set[str]:
    """The paths of the layers proposed as heads."""
    found: set[str] = set()
    _read(root, frozenset(), found)
    return found


def _read(node: Node, later: _Sizes, found: set[str]) -> tuple[bool, _Sizes]:
    """Whether what stands before `node` may still be a head, and the input sizes of the run's part inside `node`."""
    if not node.has_parameters:
        return True, frozenset()
    if node.held and is_linear(node.kinds):
        fan_in, fan_out = node.features
        if fan_out is None or fan_out not in later:
            found.add(node.path)
        return True, frozenset() if fan_in is None else frozenset([fan_in])
    inner = [child for child in node.children if child.has_parameters]
    if "ModuleDict" in node.kinds and (side_by_side := _read_each(inner, later)) is not None:
        is_open, sizes, heads_inside = side_by_side
        found |= heads_inside
        return is_open, sizes
    return _read_in_turn(inner, later, found)


def _read_in_turn(inner: list[Node], later: _Sizes, found: set[str]) -> tuple[bool, _Sizes]:
    sizes: _Sizes = frozenset()
    for child in reversed(inner):
        is_open, more = _read(child, later | sizes, found)
        sizes |= more
        if not is_open:
            return False, sizes
    return bool(inner), sizes  # without children it is a layer of another kind: it closes the run


def _read_each(inner: list[Node], later: _Sizes) -> tuple[bool, _Sizes, set[str]] | None:
    """The members of a dictionary, each from its own end; None where one of them does not end in a linear layer."""
    found: set[str] = set()
    results = [_read(child, later, found) for child in inner]
    if not inner or not all(sizes for _, sizes in results):
        return None
    return all(is_open for is_open, _ in results), frozenset().union(*(sizes for _, sizes in results)), found
