"""From trees to infos: each tensor once, in order, with every name it goes by.

Tying is found by identity, across networks too. Levels and heads are taken from each network's own tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from groupwise.errors import SelectorError
from groupwise.select.heads import heads
from groupwise.select.info import ParameterInfo, Place
from groupwise.select.levels import levels
from groupwise.select.roles import guess, settled
from groupwise.select.tree import Held, Node


def describe(networks: Iterable[tuple[str, Node]]) -> tuple[ParameterInfo, ...]:
    """The parameters of some networks, in module order.

    Args:
        networks: (key, tree) pairs; the key, where it is not empty, is put in front of every name.

    Raises:
        SelectorError: a parameter has no shape yet (a lazy module that has not seen a batch).
    """
    found: dict[int, _Draft] = {}
    for network, root in networks:
        _Describer(network, levels(root), heads(root), found).visit(root, frozenset())
    return tuple(draft.finished() for draft in found.values())


def resettled(info: ParameterInfo, reasons: list[tuple[tuple[str, str], ...]]) -> ParameterInfo:
    """The same parameter with other reasons in its places, `matrix` decided anew."""
    places = [replace(place, reasons=told) for place, told in zip(info.places, reasons, strict=True)]
    return replace(info, places=_settled(places, info.shape))


@final
@dataclass(slots=True)
class _Draft:
    tensor: Any
    shape: tuple[int, ...]
    sparse: bool = False
    places: list[Place] = field(default_factory=list)

    def finished(self) -> ParameterInfo:
        places = _settled(self.places, self.shape) if len(self.shape) == 2 else tuple(self.places)
        trainable = getattr(self.tensor, "requires_grad", None)
        trainable = getattr(self.tensor, "trainable", True) if trainable is None else trainable
        return ParameterInfo(places, self.shape, bool(trainable), self.sparse, frozenset(), self.tensor)


@final
@dataclass(slots=True)
class _Describer:
    network: str
    levels: Mapping[str, int]
    heads: set[str]
    found: dict[int, _Draft]

    def visit(self, node: Node, above: frozenset[str]) -> None:
        if not node.carries:
            return
        enclosing = above if above.issuperset(node.kinds) else above.union(node.kinds)
        for held in node.held:
            self._hold(node, held, enclosing)
        for child in node.children:
            self.visit(child, enclosing)

    def _hold(self, node: Node, held: Held, enclosing: frozenset[str]) -> None:
        module = self._named(node.path)
        name = self._named(f"{node.path}.{held.name}" if node.path and held.name else node.path or held.name)
        draft = self.found.get(id(held.tensor))
        if draft is None:
            draft = self.found[id(held.tensor)] = _Draft(held.tensor, _shape(held.tensor, name))
        draft.sparse = draft.sparse or node.sparse
        vector = sum(size != 1 for size in draft.shape) <= 1
        reasons = guess(held.leaf, node.kinds, vector, node.path in self.heads)
        level = self.levels[node.path]
        draft.places.append(Place(name, module, node.kinds, enclosing, self.network, level, reasons))

    def _named(self, path: str) -> str:
        return f"{self.network}.{path}" if self.network and path else self.network or path


def _settled(places: list[Place], shape: tuple[int, ...]) -> tuple[Place, ...]:
    """The places with the role `matrix` where it is due."""
    agreed = settled([place.reasons for place in places], shape)
    pairs = zip(places, agreed, strict=True)
    return tuple(place if place.reasons == told else replace(place, reasons=told) for place, told in pairs)


def _shape(tensor: Any, name: str) -> tuple[int, ...]:
    if any(kind.__name__ == "UninitializedTensorMixin" for kind in type(tensor).__mro__):
        raise SelectorError(f"parameter {name!r} has no shape yet: run one batch through the lazy module first")
    return tuple(int(size) for size in tensor.shape)
