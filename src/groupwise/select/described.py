"""From trees to infos: each tensor once, in order, with every name it goes by.

Tying is found by identity, across networks too. Levels and heads are taken from each network's own tree.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

from groupwise.errors import SelectorError
from groupwise.select.heads import heads
from groupwise.select.info import Occurrence, ParameterInfo
from groupwise.select.levels import levels
from groupwise.select.marks import marks_of
from groupwise.select.roles import NOWHERE, Surroundings, read, with_matrix_role
from groupwise.select.tree import Node
from groupwise.select.vocabulary import says_experts


def describe(networks: Iterable[tuple[str, Node]]) -> tuple[ParameterInfo, ...]:
    """The parameters of some networks, in module order.

    Args:
        networks: (key, tree) pairs; the key, where it is not empty, is put in front of every name.

    Raises:
        SelectorError: a parameter has no shape yet (a lazy module that has not seen a batch).
    """
    found = _Found()
    for network, root in networks:
        ends = heads(root)
        if root.has_parameters:
            _Describer(network, levels(root, ends), ends, found).visit(root, frozenset(), NOWHERE)
    return tuple(found.finished())


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
class _Found:
    """What was met of each tensor, by its identity: few objects each, since the collector counts them all."""

    tensors: dict[int, Any] = field(default_factory=dict)
    occurrences: dict[int, tuple[Occurrence, ...]] = field(default_factory=dict)
    sparse: set[int] = field(default_factory=set)
    shapes: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    def add(self, tensor: Any, occurrence: Occurrence, sparse: bool) -> None:
        key = id(tensor)
        self.tensors[key] = tensor
        self.occurrences[key] = (*self.occurrences.get(key, ()), occurrence)
        if sparse:
            self.sparse.add(key)

    def shape_of(self, tensor: Any, name: str) -> tuple[int, ...]:
        shape = _shape(tensor, name)
        return self.shapes.setdefault(shape, shape)

    def finished(self) -> Iterator[ParameterInfo]:
        for key, tensor in self.tensors.items():
            met = self.occurrences[key]
            name = met[0].name
            yield ParameterInfo(
                met if len(met) == 1 else _tied(met),
                self.shape_of(tensor, name),
                _trains(tensor),
                key in self.sparse,
                marks_of(tensor),
                tensor,
            )


def _trains(tensor: Any) -> bool:
    trainable = getattr(tensor, "requires_grad", None)
    return bool(getattr(tensor, "trainable", True) if trainable is None else trainable)


def _tied(occurrences: Sequence[Occurrence]) -> tuple[Occurrence, ...]:
    """The occurrences of one parameter, the role `matrix` decided by all of them."""
    bare = [replace(o, reasons=tuple(pair for pair in o.reasons if pair[0] != "matrix")) for o in occurrences]
    return _with_matrix(bare)


@final
@dataclass(slots=True)
class _Describer:
    network: str
    levels: Mapping[str, int]
    heads: set[str]
    found: _Found

    def visit(self, node: Node, above: frozenset[str], place: Surroundings) -> None:
        enclosing = _enclosing(above, node.kinds)
        if node.held:
            self._hold(node, enclosing, place._replace(head=True) if node.path in self.heads else place)
        children = [child for child in node.children if child.has_parameters]
        mixes = bool(children) and any(says_experts(child.name, child.kinds) for child in node.children)
        for child in children:
            self.visit(child, enclosing, place.inside(child.name, child.kinds, mixes))

    def _hold(self, node: Node, enclosing: frozenset[str], place: Surroundings) -> None:
        module, level = self._named(node.path), self.levels[node.path]
        for held in node.held:
            name = self._below(node, held.name)
            reasons, multiplied = read(held.leaf, node.kinds, self.found.shape_of(held.tensor, name), place)
            aliases = tuple([self._below(node, alias) for alias in held.aliases])
            occurrence = Occurrence(
                name, module, node.kinds, enclosing, self.network, level, reasons, aliases, multiplied
            )
            self.found.add(held.tensor, occurrence, node.sparse)

    def _below(self, node: Node, own: str) -> str:
        return self._named(f"{node.path}.{own}" if node.path and own else node.path or own)

    def _named(self, path: str) -> str:
        return f"{self.network}.{path}" if self.network and path else self.network or path


@functools.lru_cache(maxsize=4096)
def _enclosing(above: frozenset[str], kinds: tuple[str, ...]) -> frozenset[str]:
    return above if above.issuperset(kinds) else above.union(kinds)


def _with_matrix(occurrences: Sequence[Occurrence]) -> tuple[Occurrence, ...]:
    """The occurrences with the role `matrix` where it is due."""
    pairs_by_occurrence = with_matrix_role([o.reasons for o in occurrences], [o.multiplied for o in occurrences])
    pairs = zip(occurrences, pairs_by_occurrence, strict=True)
    return tuple(o if o.reasons == reasons else replace(o, reasons=reasons) for o, reasons in pairs)


def _shape(tensor: Any, name: str) -> tuple[int, ...]:
    if _is_lazy(type(tensor).__mro__):
        raise SelectorError(f"parameter {name!r} has no shape yet: run one batch through the lazy module first")
    return tuple(map(int, tensor.shape))


@functools.lru_cache(maxsize=1024)
def _is_lazy(mro: tuple[type, ...]) -> bool:
    return any(kind.__name__ == "UninitializedTensorMixin" for kind in mro)
