"""Whether a model holds what it held, by name and identity, without composing the names of all that it holds.

A parameter's name is made of the names under which each module holds what is its own. So where every module, level by
level below the roots, holds the same things under the same names, every parameter has the name that it had. Modules
that stand side by side are looked at together, some hundreds at a time, so that what one pass over them has fetched is
still in the caches for the next. No module and no tensor is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, TypeAlias

from torch import nn

from groupwise import _torch

_TOGETHER: Final = 512  # modules
_WIDE: Final = 16  # parameters, above which a module is looked at by itself

Held: TypeAlias = Mapping[str, Any]
Picked: TypeAlias = Callable[[Sequence[Held]], Iterable[Held]]


class Contents:
    """What the modules below some roots hold. Where they are not such as torch's modules, nothing is known of them."""

    def __init__(self, roots: Iterable[nn.Module]) -> None:
        self._levels: list[tuple[int, list[_SideBySide]]] | None = []
        level = [*roots]
        try:
            while level:
                pieces = [*_pieces(level)]
                self._levels.append((len(level), [*map(_SideBySide, pieces)]))
                level = [*chain.from_iterable(_below(map(_torch.own_layers, piece)) for piece in pieces)]
        except (AttributeError, TypeError):
            self._levels = None

    def are_those_of(self, roots: Iterable[nn.Module]) -> bool:
        """Whether the modules below these roots hold the same, each under the same name."""
        level = [*roots]
        for count, together in () if self._levels is None else self._levels:
            if len(level) != count:
                return False
            below = []
            for known, piece in zip(together, _pieces(level), strict=True):
                layers = known.layers_if_same(piece)
                if layers is None:
                    return False
                below += _below(layers)
            level = below
        return self._levels is not None


class _SideBySide:
    """What modules of one level hold."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        own, layers = [*map(_torch.own_parameters, modules)], [*map(_torch.own_layers, modules)]
        places: dict[str, list[int]] = defaultdict(list)
        for i, name in ((i, name) for i, held in enumerate(own) if len(held) <= _WIDE for name in held):
            places[name].append(i)
        self._by_name = [(itemgetter(name), _picked(at)) for name, at in places.items()]
        self._wide = [i for i, held in enumerate(own) if len(held) > _WIDE]
        self._parents = [i for i, held in enumerate(layers) if held]
        self._counts = _counts(own, layers)
        self._names, self._ids = self._names_in(own, layers), self._ids_in(own)

    def layers_if_same(self, modules: Sequence[nn.Module]) -> list[Held] | None:
        """The layers in those of as many modules that hold any, if all hold what these held; else None."""
        try:
            own, layers = [*map(_torch.own_parameters, modules)], [*map(_torch.own_layers, modules)]
            same = _counts(own, layers) == self._counts and self._ids_in(own) == self._ids
            same = same and self._names_in(own, layers) == self._names
        except (AttributeError, TypeError, KeyError):
            return None
        return [layers[i] for i in self._parents] if same else None

    def _ids_in(self, own: Sequence[Held]) -> list[int]:
        """Of every parameter. Raises `KeyError` where a narrow module lacks one."""
        found: list[int] = []
        for of_name, picked in self._by_name:
            found += map(id, map(of_name, picked(own)))
        for i in self._wide:
            found += map(id, own[i].values())
        return found

    def _names_in(self, own: Sequence[Held], layers: Sequence[Held]) -> list[object]:
        """Of every layer, and of the parameters of wide modules, with the number of each module's."""
        several = [*(layers[i] for i in self._parents), *(own[i] for i in self._wide)]
        return [*map(len, several), *chain.from_iterable(several)]


def _counts(*held: Sequence[Held]) -> list[int]:
    return [sum(map(len, each)) for each in held]


def _picked(places: Sequence[int]) -> Picked:
    """A function that takes those out of a sequence that are in some places, in order."""
    first, last = places[0], places[-1]
    if last - first + 1 == len(places):
        return itemgetter(slice(first, last + 1))
    return itemgetter(*places)


def _pieces(level: Sequence[nn.Module]) -> Iterable[Sequence[nn.Module]]:
    return (level[i : i + _TOGETHER] for i in range(0, len(level), _TOGETHER))


def _below(layers: Iterable[Held]) -> list[nn.Module]:
    return [layer for held in layers if held for layer in held.values() if layer is not None]
