"""Heads: the linear layers that nothing follows.

Read the tree from its end. As long as only linear layers are met, they form the trailing run; the first layer of
another kind that carries parameters closes it. Within the run, a layer whose output size is the input size of a later
one feeds it, so it is no head: of `Linear → ReLU → Linear` only the last remains, of three heads side by side each. A
module's own parameters beside its layers have no place in the order, so they close nothing.

Beyond the run, a sibling that takes what the last one takes, and whose output no later one takes, stands beside it:
of {norm → 8 to 3, norm → 8 to 5} both end in a head. The members of what is called heads, tasks or the like stand
side by side whatever their sizes, and so do the projections of two towers (`text_projection`, `visual_projection`).
Dictionaries, lists and attributes are read alike. The last layer of an encoder's last block is no head: blocks in
series (several products that are no mere chain, as wide at the end as at the start) close the run. What connects
parts by its name (`multi_modal_projector`) may be registered behind the head that it precedes, so it closes nothing
where a head is named.

It is a proposal: a model says nothing about what its `forward` does last. `roles={"head": …}` overrules it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import final

from groupwise.select.sizes import entry_of, exit_of, is_chain, products_of
from groupwise.select.tree import Node
from groupwise.select.vocabulary import is_linear

_Sizes = frozenset[int]

_BESIDE = re.compile(r"(^|_)(heads?|tasks?|classifiers?|exits?|predictors?|critics?|readouts?)$", re.IGNORECASE)
_CONNECTS = re.compile(
    r"(^|_)(projector|connector|merger|resampler|adapter)s?(_list)?$|(^|_)pos(ition(al)?)?_|^vision_embed",
    re.IGNORECASE,
)
_NAMED = re.compile(r"head|classifier|logits|(^|[._])(fc|output_projection)$", re.IGNORECASE)
_TOWER = re.compile(r"^(visual|vision|image|img|text|txt|audio|speech|video|language)_", re.IGNORECASE)
_BLOCK = re.compile(r"(Block|Layer)$")


def heads(root: Node) -> set[str]:
    """The paths of the layers proposed as heads."""
    found = _Reader(through_connectors=True).of(root)
    return found if any(map(_NAMED.search, found)) else _Reader(through_connectors=False).of(root)


def stand_side_by_side(node: Node) -> bool:
    """Whether the members of a container are several heads by its name: `heads`, `task_heads`, `classifiers`."""
    return _BESIDE.search(node.name) is not None and bool({"ModuleList", "ModuleDict"} & set(node.kinds))


@final
@dataclass(slots=True)
class _Reader:
    """One reading of a tree from its end; `through_connectors` says whether what connects parts is passed over."""

    through_connectors: bool
    found: set[str] = field(default_factory=set)

    def of(self, root: Node) -> set[str]:
        self._read(root, frozenset())
        return self.found

    def _read(self, node: Node, later: _Sizes) -> tuple[bool, _Sizes]:
        """Whether what stands before `node` may be a head, and the input sizes of the run's part inside `node`."""
        if not node.has_parameters or (self.through_connectors and _CONNECTS.search(node.name)):
            return True, frozenset()
        if node.held and (
            is_linear(node.kinds) or node.features[1] is not None
        ):  # or a convolution that is one in fact
            fan_in, fan_out = node.features
            if fan_out is None or fan_out not in later:
                self.found.add(node.path)
            return True, frozenset() if fan_in is None else frozenset([fan_in])
        inner = _in_order([child for child in node.children if child.has_parameters])
        if stand_side_by_side(node):
            results = [self._read(child, later) for child in inner]
            return all(is_open for is_open, _ in results), frozenset().union(*(sizes for _, sizes in results))
        return (False, frozenset()) if _in_series(inner) else self._read_in_turn(inner, later)

    def _read_in_turn(self, inner: list[Node], later: _Sizes) -> tuple[bool, _Sizes]:
        joined = _joined(inner)
        taken: dict[str | None, _Sizes] = {}  # what the later ones take; those named after a tower by the rest of it
        for i in reversed(range(len(inner))):
            twins = _without_tower(inner[i])
            follow = [sizes for rest, sizes in taken.items() if rest is None or rest != twins]
            is_open, more = self._read(inner[i], later.union(joined[i], *follow))
            taken[twins] = taken.get(twins, frozenset()) | more
            if not is_open:
                if any(taken.values()):
                    self._read_beside(inner[: i + 1], later)
                return False, frozenset().union(*taken.values())
        # without children it is a layer of another kind: it closes the run
        return bool(inner), frozenset().union(*taken.values())

    def _read_beside(self, siblings: list[Node], later: _Sizes) -> None:
        """Those before the last of `siblings` that take what it takes, and that nothing takes from."""
        *earlier, last = siblings
        taken = entry_of(last)
        for node in reversed(earlier):
            given = exit_of(node)
            if taken is None or given is None or entry_of(node) != taken or given == taken or given in later:
                return
            self._read(node, later)


def _in_order(inner: list[Node]) -> list[Node]:
    """The layers in order of use, as far as names tell: `proj_out` is behind the layers between it and `proj_in`."""
    last = [node for node in inner if node.name == "proj_out" and any(other.name == "proj_in" for other in inner)]
    return [node for node in inner if node not in last] + last


def _in_series(members: list[Node]) -> bool:
    """Whether they are blocks, one after the other."""
    if not members or not all(node.name.isdigit() for node in members) or len({n.kinds[:1] for n in members}) > 1:
        return False
    if len(members) == 1 and not any(map(_BLOCK.search, members[0].kinds[:1])):
        return False
    return all(map(_is_block, members))


def _is_block(node: Node) -> bool:
    products = products_of(node)
    taken, given = entry_of(node), exit_of(node)
    return len(products) > 1 and not is_chain(products) and (taken == given or taken is None or given is None)


def _without_tower(node: Node) -> str | None:
    """The rest of a name that begins with a tower's: `text_projection` and `visual_projection` are the same for two."""
    return _TOWER.sub("", node.name) if _TOWER.search(node.name) else None


def _joined(inner: list[Node]) -> list[_Sizes]:
    """For each of `inner` what it gives, if it and its neighbours are taken together by a later sibling, side by side.

    The first such sibling counts.
    """
    given = [exit_of(node) for node in inner]
    joined: list[_Sizes] = [frozenset()] * len(inner)
    first = len(inner)  # of those that the next sibling that joins takes together
    for j in reversed(range(len(inner))):
        joined[j] = frozenset([given[j] or 0]) if j >= first else frozenset()
        together = _taken_together(given, entry_of(inner[j]), j)
        first = first if together is None else together
    return joined


def _taken_together(given: list[int | None], taken: int | None, j: int) -> int | None:
    """The first of the siblings before the `j`-th, two or more, whose outputs make what it takes."""
    total = 0
    for k in reversed(range(j)):
        size = given[k]
        total += size or 0
        if size is None or taken is None or total > taken:
            return None
        if total == taken and k < j - 1:
            return k
    return None
