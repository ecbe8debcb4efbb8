"""The exchange between ranks: whether there are several, what they send one another, and whether they say the same.

A collective of a `Group` needs every rank of it, and waits for one that does not come. `Notes` need nobody: they are
left in the store of the default process group, where whoever looks finds them; a rank that needs the others' looks
again for at most `PATIENCE` seconds. They are for programs that may do something on some of their ranks only.

Whether all ranks say the same is known to all from one sum: of n numbers x, n sum x^2 = (sum x)^2 if they are all
equal, and only then. A text goes as a number of 20 bits, so both sums are exact in float64 for up to 2^13 ranks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, final
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor

from groupwise import _torch
from groupwise.errors import listed

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a rank looks for the others' notes."""

_BITS = 20
_SHOWN = 120


_AVAILABLE: Final = dist.is_available()


def world() -> Group | None:
    """The ranks of the default process group; None without one, and where it has one rank."""
    several = _AVAILABLE and dist.is_initialized() and dist.get_world_size() > 1
    return Group(dist.group.WORLD) if several else None


@final
class Group:
    """The ranks of one process group.

    Attributes:
        size: how many there are.
        rank: which of them this one is.
    """

    def __init__(self, handle: dist.ProcessGroup | None) -> None:
        self._handle = handle
        self.size: int = dist.get_world_size(handle)
        self.rank: int = dist.get_rank(handle)

    def gather(self, value: T) -> list[T]:
        """What each rank gives, by rank; any object that can be pickled."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._handle)
        return found

    def add(self, numbers: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        dist.all_reduce(numbers, group=self._handle)
        return numbers

    def add_all(self, pieces: Mapping[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The sum of each piece over the ranks, by its key, as a tensor of the key's shape.

        There is one message for each device and dtype of keys; they come in the same order on every rank.
        """
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for key in pieces:
            alike.setdefault((key.device, key.dtype), []).append(key)
        for keys in alike.values():
            flat = self.add(torch.cat([pieces[key].flatten() for key in keys]))
            for key, piece in zip(keys, torch.split(flat, [key.numel() for key in keys]), strict=True):
                yield key, piece.view(key.shape)


@final
class Notes:
    """Texts and counts under one key that ranks leave for one another. No method waits for a rank.

    A store that is gone, or of a kind that cannot do it, raises `RuntimeError`.
    """

    def __init__(self, store: Any, key: str) -> None:
        self._store = store
        self._key = key

    @staticmethod
    def under(key: str) -> Notes | None:
        """Those of the default process group; None where no others could read them."""
        store = None if world() is None else _torch.default_store()
        return None if store is None else Notes(store, key)

    def arrive(self, at: str) -> int:
        """Count this rank; how many have come, with it."""
        return int(self._store.add(f"{self._key}/{at}", 1))

    def count(self, at: str) -> int:
        """How many have come."""
        return int(self._store.add(f"{self._key}/{at}", 0))

    def write(self, name: str, text: str) -> None:
        """Leave a text."""
        self._store.set(f"{self._key}/{name}", text)

    def settle(self, name: str, text: str) -> str:
        """Leave a text unless a rank has already; the text that is there for all."""
        found: bytes = self._store.compare_set(f"{self._key}/{name}", "", text)
        return found.decode()

    def read(self, names: Sequence[str]) -> dict[str, str]:
        """The texts of those names that there are by now."""
        keys = {name: f"{self._key}/{name}" for name in names}
        if not keys:
            return {}
        if not self._store.check([*keys.values()]):
            keys = {name: key for name, key in keys.items() if self._store.check([key])}
        found = self._store.multi_get([*keys.values()]) if keys else []
        return {name: text.decode() for name, text in zip(keys, found, strict=True)}


def polls(seconds: float | None = None) -> Iterator[None]:
    """Moments at which to look at notes again, for `PATIENCE` or some other number of seconds."""
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while time.monotonic() < end:
        yield
        time.sleep(0.02)


def checksums(texts: Sequence[str]) -> list[float]:
    """What a rank adds to a sum by which `differing` finds them: two numbers for each text."""
    numbers = [crc32(text.encode()) % (1 << _BITS) for text in texts]
    return [float(value) for number in numbers for value in (number, number**2)]


def differing(names: Sequence[str], sums: Sequence[float], size: int) -> list[str]:
    """The names of the texts that are not the same on all of `size` ranks, from the sums of their `checksums`."""
    pairs = zip(sums[::2], sums[1::2], strict=True)
    return [name for name, (first, second) in zip(names, pairs, strict=True) if size * int(second) != int(first) ** 2]


def by_rank(texts: Mapping[int, str]) -> list[str]:
    """Who has what, in words, a sentence for each text: ["0.1 on ranks 0, 3", "0.2 on rank 1"]."""
    ranks: dict[str, list[int]] = {}
    for rank, text in sorted(texts.items()):
        ranks.setdefault(text, []).append(rank)
    return [f"{_short(text)} on {named(where)}" for text, where in ranks.items()]


def named(ranks: Sequence[int]) -> str:
    """`rank 1`, `ranks 0, 3`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {listed(map(str, sorted(ranks)), 8)}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
