"""From trees to infos: each tensor once, in order, with every name it goes by.

Tying is found by identity, across networks too. Levels and heads are taken from each network's own tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from groupwise.errors import SelectorError
from groupwise.select.heads import heads
from groupwise.select.info import Occurrence, ParameterInfo
from groupwise.select.levels import levels
from groupwise.select.roles import guess, with_matrix_role
from groupwise.select.tree import Node, OwnParameter


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
    occurrences = [
        replace(occurrence, reasons=told) for occurrence, told in zip(info.occurrences, reasons, strict=True)
    ]
    return replace(info, occurrences=_settled(occurrences, info.shape))


@final
@dataclass(slots=True)
class _Draft:
    tensor: Any
    shape: tuple[int, ...]
    sparse: bool = False
    occurrences: list[Occurrence] = field(default_factory=list)

    def finished(self) -> ParameterInfo:
        occurrences = _settled(self.occurrences, self.shape) if len(self.shape) == 2 else tuple(self.occurrences)
        trainable = getattr(self.tensor, "requires_grad", None)
        trainable = getattr(self.tensor, "trainable", True) if trainable is None else trainable
        return ParameterInfo(occurrences, self.shape, bool(trainable), self.sparse, frozenset(), self.tensor)


@final
@dataclass(slots=True)
class _Describer:
    network: str
    levels: Mapping[str, int]
    heads: set[str]
    found: dict[int, _Draft]

    def visit(self, node: Node, above: frozenset[str]) -> None:
        if not node.has_parameters:
            return
        enclosing = above if above.issuperset(node.kinds) else above.union(node.kinds)
        for held in node.held:
            self._hold(node, held, enclosing)
        for child in node.children:
            self.visit(child, enclosing)

    def _hold(self, node: Node, held: OwnParameter, enclosing: frozenset[str]) -> None:
        module = self._named(node.path)
        name = self._named(f"{node.path}.{held.name}" if node.path and held.name else node.path or held.name)
        draft = self.found.get(id(held.tensor))
        if draft is None:
            draft = self.found[id(held.tensor)] = _Draft(held.tensor, _shape(held.tensor, name))
        draft.sparse = draft.sparse or node.sparse
        vector = sum(size != 1 for size in draft.shape) <= 1
        reasons = guess(held.leaf, node.kinds, vector, node.path in self.heads)
        level = self.levels[node.path]
        draft.occurrences.append(Occurrence(name, module, node.kinds, enclosing, self.network, level, reasons))

    def _named(self, path: str) -> str:
        return f"{self.network}.{path}" if self.network and path else self.network or path


def _settled(occurrences: list[Occurrence], shape: tuple[int, ...]) -> tuple[Occurrence, ...]:
    """The places with the role `matrix` where it is due."""
    agreed = with_matrix_role([occurrence.reasons for occurrence in occurrences], shape)
    pairs = zip(occurrences, agreed, strict=True)
    return tuple(
        occurrence if occurrence.reasons == told else replace(occurrence, reasons=told) for occurrence, told in pairs
    )


def _shape(tensor: Any, name: str) -> tuple[int, ...]:
    if any(kind.__name__ == "UninitializedTensorMixin" for kind in type(tensor).__mro__):
        raise SelectorError(f"parameter {name!r} has no shape yet: run one batch through the lazy module first")
    return tuple(int(size) for size in tensor.shape)
