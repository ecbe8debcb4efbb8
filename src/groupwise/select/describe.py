"""From trees to infos: each tensor once, in order, with every name it goes by.

Tying is found by identity, across networks too. Levels and heads are taken from each network's own tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

from groupwise.errors import SelectorError
from groupwise.select.heads import heads
from groupwise.select.info import Occurrence, ParameterInfo
from groupwise.select.levels import levels
from groupwise.select.marks import marks_of
from groupwise.select.roles import NOWHERE, Surroundings, guess, matrix_reason, with_matrix_role
from groupwise.select.tree import Node, OwnParameter
from groupwise.select.vocabulary import says_experts


def describe(networks: Iterable[tuple[str, Node]]) -> tuple[ParameterInfo, ...]:
    """The parameters of some networks, in module order.

    Args:
        networks: (key, tree) pairs; the key, where it is not empty, is put in front of every name.

    Raises:
        SelectorError: a parameter has no shape yet (a lazy module that has not seen a batch).
    """
    found: dict[int, _Builder] = {}
    for network, root in networks:
        ends = heads(root)
        _Describer(network, levels(root, ends), ends, found).visit(root, frozenset(), NOWHERE)
    return tuple(builder.finished() for builder in found.values())


def with_reasons(info: ParameterInfo, reasons: list[tuple[tuple[str, str], ...]]) -> ParameterInfo:
    """The same parameter with other reasons in its places, `matrix` decided anew."""
    occurrences = [
        replace(
            occurrence, reasons=tuple(pair for pair in pairs_by_occurrence if pair != ("matrix", occurrence.multiplied))
        )
        for occurrence, pairs_by_occurrence in zip(info.occurrences, reasons, strict=True)
    ]
    return with_occurrences(info, occurrences)


def with_occurrences(info: ParameterInfo, occurrences: Sequence[Occurrence]) -> ParameterInfo:
    """The same parameter with other places, the role `matrix` added where it is due."""
    return replace(info, occurrences=_with_matrix(occurrences))


@final
@dataclass(slots=True)
class _Builder:
    tensor: Any
    shape: tuple[int, ...]
    sparse: bool = False
    occurrences: list[Occurrence] = field(default_factory=list)

    def finished(self) -> ParameterInfo:
        occurrences = _with_matrix(self.occurrences)
        trainable = getattr(self.tensor, "requires_grad", None)
        trainable = getattr(self.tensor, "trainable", True) if trainable is None else trainable
        return ParameterInfo(occurrences, self.shape, bool(trainable), self.sparse, marks_of(self.tensor), self.tensor)


@final
@dataclass(slots=True)
class _Describer:
    network: str
    levels: Mapping[str, int]
    heads: set[str]
    found: dict[int, _Builder]

    def visit(self, node: Node, above: frozenset[str], place: Surroundings) -> None:
        if not node.has_parameters:
            return
        enclosing = above if above.issuperset(node.kinds) else above.union(node.kinds)
        own = replace(place, head=True) if node.path in self.heads else place
        for held in node.held:
            self._hold(node, held, enclosing, own)
        mixes = any(says_experts(child.name, child.kinds) for child in node.children)
        for child in node.children:
            self.visit(child, enclosing, place.inside(child.name, child.kinds, mixes))

    def _hold(self, node: Node, held: OwnParameter, enclosing: frozenset[str], place: Surroundings) -> None:
        module = self._named(node.path)
        name = self._below(node, held.name)
        builder = self.found.get(id(held.tensor))
        if builder is None:
            builder = self.found[id(held.tensor)] = _Builder(held.tensor, _shape(held.tensor, name))
        builder.sparse = builder.sparse or node.sparse
        builder.occurrences.append(
            Occurrence(
                name,
                module,
                node.kinds,
                enclosing,
                self.network,
                self.levels[node.path],
                guess(held.leaf, node.kinds, builder.shape, place),
                tuple(self._below(node, alias) for alias in held.aliases),
                matrix_reason(held.leaf, node.kinds, builder.shape, place),
            )
        )

    def _below(self, node: Node, own: str) -> str:
        return self._named(f"{node.path}.{own}" if node.path and own else node.path or own)

    def _named(self, path: str) -> str:
        return f"{self.network}.{path}" if self.network and path else self.network or path


def _with_matrix(occurrences: Sequence[Occurrence]) -> tuple[Occurrence, ...]:
    """The occurrences with the role `matrix` where it is due."""
    pairs_by_occurrence = with_matrix_role([o.reasons for o in occurrences], [o.multiplied for o in occurrences])
    pairs = zip(occurrences, pairs_by_occurrence, strict=True)
    return tuple(o if o.reasons == reasons else replace(o, reasons=reasons) for o, reasons in pairs)


def _shape(tensor: Any, name: str) -> tuple[int, ...]:
    if any(kind.__name__ == "UninitializedTensorMixin" for kind in type(tensor).__mro__):
        raise SelectorError(f"parameter {name!r} has no shape yet: run one batch through the lazy module first")
    return tuple(map(int, tensor.shape))
