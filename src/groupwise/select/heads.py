"""Heads: the linear layers that nothing follows.

Read the tree from its end. As long as only linear layers are met, they form the trailing run; the first layer of
another kind that carries parameters closes it. Within the run, a layer whose output size is the input size of a later
one feeds it, so it is no head: of `Linear → ReLU → Linear` only the last remains, of three heads side by side each. A
module's own parameters beside its layers have no place in the order, so they close nothing.

Beyond the run, a sibling that takes what the last one takes, and whose output no later one takes, stands beside it: of
{norm → 8 to 3, norm → 8 to 5} both end in a head. The members of what is called heads, tasks or the like stand side by
side whatever their sizes. Dictionaries, lists and attributes are read alike.

It is a proposal: a model says nothing about what its `forward` does last. `roles={"head": …}` overrules it.
"""

from __future__ import annotations

import re

from groupwise.select.sizes import entry_of, exit_of
from groupwise.select.tree import Node
from groupwise.select.vocabulary import is_linear

_Sizes = frozenset[int]

_BESIDE = re.compile(r"(^|_)(heads?|tasks?|classifiers?|exits?|predictors?|critics?|readouts?)$", re.IGNORECASE)


def heads(root: Node) -> set[str]:
    """The paths of the layers proposed as heads."""
    found: set[str] = set()
    _read(root, frozenset(), found)
    return found


def stand_side_by_side(node: Node) -> bool:
    """Whether the members of a container are several heads by its name: `heads`, `task_heads`, `classifiers`."""
    return _BESIDE.search(node.name) is not None and bool({"ModuleList", "ModuleDict"} & set(node.kinds))


def _read(node: Node, later: _Sizes, found: set[str]) -> tuple[bool, _Sizes]:
    """Whether what stands before `node` may still be a head, and the input sizes of the run's part inside `node`."""
    if not node.has_parameters:
        return True, frozenset()
    if node.held and (is_linear(node.kinds) or node.features[1] is not None):  # or a convolution that is one in fact
        fan_in, fan_out = node.features
        if fan_out is None or fan_out not in later:
            found.add(node.path)
        return True, frozenset() if fan_in is None else frozenset([fan_in])
    inner = [child for child in node.children if child.has_parameters]
    if stand_side_by_side(node):
        results = [_read(child, later, found) for child in inner]
        return all(is_open for is_open, _ in results), frozenset().union(*(sizes for _, sizes in results))
    return _read_in_turn(inner, later, found)


def _read_in_turn(inner: list[Node], later: _Sizes, found: set[str]) -> tuple[bool, _Sizes]:
    sizes: _Sizes = frozenset()
    for i in reversed(range(len(inner))):
        is_open, more = _read(inner[i], later | sizes | _joined(inner, i), found)
        sizes |= more
        if not is_open:
            if sizes:
                _read_beside(inner[: i + 1], later, found)
            return False, sizes
    return bool(inner), sizes  # without children it is a layer of another kind: it closes the run


def _joined(inner: list[Node], i: int) -> _Sizes:
    """What `inner[i]` gives, if it and its neighbours are taken together by a later sibling, one beside the other."""
    given = [exit_of(node) for node in inner]
    for j in range(i + 1, len(inner)):
        taken, total = entry_of(inner[j]), 0
        for k in reversed(range(j)):
            total += given[k] or 0
            if given[k] is None or taken is None or total > taken:
                break
            if total == taken and k < j - 1:
                return frozenset([given[i] or 0]) if k <= i else frozenset()
    return frozenset()


def _read_beside(siblings: list[Node], later: _Sizes, found: set[str]) -> None:
    """Those before the last of `siblings` that take what it takes, and that nothing takes from."""
    *earlier, last = siblings
    taken = entry_of(last)
    for node in reversed(earlier):
        given = exit_of(node)
        if taken is None or given is None or entry_of(node) != taken or given == taken or given in later:
            return
        _read(node, later, found)
