"""Stacks: the numbered containers whose members feed each other, as opposed to lists that only collect.

A list of heads, of experts, of embeddings or of branches is numbered too, and so are the parts of one block, as
convolution and norm of a stem written as a `Sequential`. So a stack is a numbered container of *blocks* (members that
are made of layers). Containers of single layers count only where no container of blocks is left, the last of several
being the head. A numbered container that holds a stem, a body with blocks and a head reads like attributes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from groupwise.select.heads import stand_side_by_side
from groupwise.select.sizes import entry_of, exit_of, is_product, products_of, sizes_of
from groupwise.select.tree import Node
from groupwise.select.vocabulary import embedding_kind, norm_kind, says_experts

_STEM = re.compile(r"stem|patch_embed|(^|_)embed(ding|der)?s?$", re.IGNORECASE)
_TOP = re.compile(r"(^|_)(heads?|classifier|fc|top|pre_logits|logits)$", re.IGNORECASE)
_DECODES = re.compile(r"decode|predictor|(^|_)up(_|$)", re.IGNORECASE)
_COPY = re.compile(r"(^|_)(teacher|ema|swa|target|momentum|averaged?|shadow|reference|ref|frozen)(_|$)", re.IGNORECASE)
_FEEDS = re.compile(r"backbone|trunk|features?(_|$)|(^|_)(body|base|encoder|vision)(_|$)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+$")


class Stacks:
    """What is a stack in one tree, and what is set aside."""

    def __init__(self, root: Node, heads: frozenset[str]) -> None:
        self.heads = heads
        self._has: dict[int, bool] = {}
        self._frozen: dict[int, bool] = {}
        self._holds_head: dict[int, bool] = {}
        self._blocks: dict[int, bool] = {}
        self._ends = True  # stems and heads are no stacks, as long as something else is one
        self._trunk = self._holds_blocks(root) or self._retry(root)
        self._chains = set() if self._trunk else self._chains_of_layers(root)
        self._aside = frozenset(map(id, _Aside(self).of(root)))

    def is_stack(self, node: Node) -> bool:
        """Whether its children are levels."""
        return self._is_blocks(node) if self._trunk else node.path in self._chains

    def has_stack(self, node: Node) -> bool:
        """Whether a stack is in it, itself included."""
        if not node.children:
            return False
        if id(node) not in self._has:
            inside = not self._is_end(node) and any(map(self.has_stack, node.children))
            self._has[id(node)] = self.is_stack(node) or inside
        return self._has[id(node)]

    def is_aside(self, node: Node) -> bool:
        """Whether it is a frozen copy, which has levels of its own."""
        return id(node) in self._aside

    def is_head(self, node: Node) -> bool:
        """Whether it ends in a head."""
        if id(node) not in self._holds_head:
            self._holds_head[id(node)] = node.path in self.heads or any(map(self.is_head, node.children))
        return self._holds_head[id(node)]

    def is_frozen(self, node: Node) -> bool:
        """Whether all that it holds is frozen."""
        if id(node) not in self._frozen:
            own = all(getattr(held.tensor, "requires_grad", True) is False for held in node.held)
            self._frozen[id(node)] = own and all(self.is_frozen(c) for c in node.children if c.has_parameters)
        return self._frozen[id(node)]

    def _retry(self, root: Node) -> bool:
        self._ends = False
        self._blocks.clear()
        return self._holds_blocks(root)

    def _holds_blocks(self, node: Node) -> bool:
        if not node.children or self._is_end(node):
            return False
        return self._is_blocks(node) or any(map(self._holds_blocks, node.children))

    def _is_end(self, node: Node) -> bool:
        return self._ends and bool(_STEM.search(node.name) or _TOP.search(node.name))

    def _is_blocks(self, node: Node) -> bool:
        """A numbered container of blocks, and no collection."""
        if not node.children:
            return False
        if id(node) not in self._blocks:
            self._blocks[id(node)] = is_numbered(node) and self._reads_as_blocks(node)
        return self._blocks[id(node)]

    def _reads_as_blocks(self, node: Node) -> bool:
        members = [child for child in node.children if child.has_parameters]
        if self._is_end(node) or not any(map(is_composite, members)):
            return False
        if self._is_collection(node, members) or (len(members) == 1 and len(node.children) > 1):
            return False  # pooling and a block written as a `Sequential` is that block
        holding = [any(map(self._holds_blocks, m.children)) or self._is_blocks(m) for m in members]
        if len(members) == 1 and holding[0]:
            return False  # a list of one network: its blocks are the levels
        others = {m.kinds[:1] for m, holds in zip(members, holding, strict=True) if not holds and products_of(m)}
        return not any(holding) or not others - {m.kinds[:1] for m, h in zip(members, holding, strict=True) if h}

    def _is_collection(self, node: Node, members: list[Node]) -> bool:
        if says_experts(node.name, node.kinds) or stand_side_by_side(node):
            return True
        if "ModuleList" not in node.kinds and "ModuleDict" not in node.kinds:
            return False
        if len(members) > 1 and all(map(self.is_head, members)):
            return True
        return all(embedding_kind(m.kinds) for m in members) or _do_not_feed(members)

    def _chains_of_layers(self, root: Node) -> set[str]:
        """The containers of single layers that count as stacks in a tree without blocks."""
        found = self._chains_in(root)
        while len(found) > 1 and self.is_head(found[-1]):
            found.pop()
        return {node.path for node in found}

    def _chains_in(self, node: Node) -> list[Node]:
        if _STEM.search(node.name) and node.path:
            return []
        if is_numbered(node):
            members = [child for child in node.children if child.has_parameters]
            chain = sum(map(is_product, members)) > 1 and not self._is_collection(node, members)
            return [node] if chain or not node.path else []
        holding = [(child, chains) for child in node.children if (chains := self._chains_in(child))]
        nested = [child for child, _ in holding if not is_numbered(child)]
        if any(_are_numbered([one, other]) for one, other in pairwise(nested)):
            return []  # block1, block2: each of them is a level
        return [chain for _, chains in holding for chain in chains]


class _Aside:
    """Frozen copies: parts with stacks that never train, where another stack does."""

    def __init__(self, stacks: Stacks) -> None:
        self.stacks = stacks

    def of(self, root: Node) -> list[Node]:
        """The outermost copies; none where nothing with a stack would be left, or nothing trains."""
        if self.stacks.is_frozen(root):
            return []
        found = list(self._below(root))
        return found if found and self._left(root, found) else []

    def _below(self, node: Node) -> list[Node]:
        found = []
        for child in node.children:
            if child.has_parameters and self.stacks.is_frozen(child):
                copy = _COPY.search(child.name) or self._is_tower(child, node.children)
                if copy or any(_alike(child, other) for other in node.children if not self.stacks.is_frozen(other)):
                    found.append(child)
            elif not self.stacks.is_stack(node):
                found += self._below(child)
        return found

    def _is_tower(self, child: Node, siblings: Sequence[Node]) -> bool:
        """Whether it has a stack inside, and is none of several that are numbered, which feed each other."""
        if _FEEDS.search(child.name):
            return False  # pre-trained and frozen, but what trains stands on it
        stage = any(other is not child and _are_numbered([child, other]) for other in siblings)
        return self.stacks.has_stack(child) and not self.stacks.is_stack(child) and not stage

    def _left(self, node: Node, aside: list[Node]) -> bool:
        if any(node is copy for copy in aside):
            return False
        if not self.stacks.has_stack(node):
            return bool(node.has_parameters) and not self.stacks._trunk and not self.stacks._chains
        return self.stacks.is_stack(node) or any(self._left(child, aside) for child in node.children)


def is_numbered(node: Node) -> bool:
    """Whether all of its children are numbered, and some have parameters."""
    children = node.children
    if not all(child.name.isdigit() for child in children[:1]):  # most are told by their first
        return False
    return any(child.has_parameters for child in children) and all(child.name.isdigit() for child in children)


def is_composite(node: Node) -> bool:
    """Whether it is made of layers; what is seen through a parametrization makes no layer composite."""
    return any(child.has_parameters and "." not in child.name for child in node.children)


def is_norm(node: Node) -> bool:
    """Whether it is a layer without a product: a norm, a learnt activation."""
    return not node.children and bool(node.held) and bool(norm_kind(node.kinds) or not is_product(node))


def feeds(before: Node, after: Node) -> bool:
    """Whether one part may take what the part before it gives, by their sizes."""
    given, taken = exit_of(before), entry_of(after)
    return given is None or taken is None or given == taken or entry_of(before) != taken


def side_by_side(stacks: Stacks, one: Node, other: Node) -> bool:
    """Whether two siblings with stacks in them are two towers."""
    if stacks.is_stack(one) or stacks.is_stack(other) or _are_numbered([one, other]):
        return False
    if _decodes(one) != _decodes(other):
        return False
    return one.kinds[:1] == other.kinds[:1] != () or _inner(stacks, one) == _inner(stacks, other)


def _decodes(node: Node) -> bool:
    return any(map(_DECODES.search, (node.name, *node.kinds[:1])))


def _inner(stacks: Stacks, node: Node) -> list[str]:
    """The paths of the stacks inside, from the node downward."""
    if stacks.is_stack(node):
        return [""]
    return [f".{child.name}{path}" for child in node.children for path in _inner(stacks, child)]


def _are_numbered(nodes: list[Node]) -> bool:
    """`stage1`, `stage2`: one word and a number."""
    words = {_NUMBER.sub("", node.name) for node in nodes}
    return len(words) == 1 and all(_NUMBER.search(node.name) for node in nodes)


def _do_not_feed(members: list[Node]) -> bool:
    """Whether small members, each a chain in itself, give what no next one takes."""
    ends = []
    for member in members:
        layers = [sizes_of(layer) for layer in products_of(member)]
        if not 0 < len(layers) < 4 or any(a[1] != b[0] for a, b in pairwise(layers)):
            return False
        ends.append((layers[0][0], layers[-1][1]))
    known = all(size is not None for pair in ends for size in pair)
    return len(ends) > 1 and known and all(a[1] != b[0] for a, b in pairwise(ends))


def _alike(one: Node, other: Node) -> bool:
    """Whether one is a copy of the other: the same layers with the same shapes."""
    if not other.has_parameters or _are_numbered([one, other]):
        return False
    return _shapes(one) == _shapes(other)


def _shapes(node: Node) -> list[tuple[int, ...]]:
    own = [tuple(held.tensor.shape) for held in node.held]
    return own + [shape for child in node.children for shape in _shapes(child)]
