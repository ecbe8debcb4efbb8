"""Many names in few words: `trunk.* (12 tensors), head.bias`.

A module all of whose parameters are meant stands for them, the outermost such module. A tied parameter
goes by its first name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from groupwise._spelling import counted
from groupwise.errors import listed

SHOWN = 4
"""How many modules or parameters a message spells out."""


def brief(names: Sequence[str], everything: Iterable[str]) -> str:
    """`names`, none of which is listed where its whole module is meant, among all the names there are."""
    parts = [_spelled(prefix, held) for prefix, held in gathered(names, everything)]
    return listed(parts, limit=SHOWN)


def gathered(names: Collection[str], everything: Iterable[str]) -> list[tuple[str, list[str]]]:
    """(module, its parameters) for each whole module that `names` cover, (name, [name]) for the rest, in order."""
    meant, whole = set(names), _covered(set(names), everything)
    found: dict[str, list[str]] = {}
    for name in names:
        outer = next((prefix for prefix in _prefixes(name) if prefix in whole), name)
        found.setdefault(outer if name in meant else name, []).append(name)
    return list(found.items())


def _covered(meant: set[str], everything: Iterable[str]) -> set[str]:
    """Modules, the root (an empty name) included, that hold no parameter beyond `meant`."""
    inside = {prefix for name in meant for prefix in _prefixes(name)}
    return inside - {prefix for name in everything if name not in meant for prefix in _prefixes(name)}


def _prefixes(name: str) -> Iterator[str]:
    """The modules around a parameter, outermost first: "", "trunk", "trunk.0"."""
    parts = name.split(".")
    yield from (".".join(parts[:depth]) for depth in range(len(parts)))


def _spelled(prefix: str, held: Sequence[str]) -> str:
    module = f"{prefix}.*" if prefix else "the whole model"
    return f"{module} ({counted(len(held), 'tensor')})" if len(held) > 1 else held[0]
