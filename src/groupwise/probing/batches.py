"""The batches of a short run: the same ones for every contestant of a seed, and nothing of the caller's order lost.

Contestants are compared in pairs, so two runs of one seed have to see the same batches. What can be started again is
started again; what can be used once only (a generator) is kept in memory as far as it was used.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any, final

import torch

from groupwise._spelling import shown
from groupwise.errors import ProbeError

_FORMS = (
    "batches are a list, a DataLoader or any other iterable of what the loss takes, or a function that makes one, of "
    "a seed or of nothing"
)
_CLOSED = (str, bytes, int, float, type, ModuleType, torch.Tensor, torch.nn.Module)
_SHORT = 16


@final
class Batches:
    """Batches by seed. Raises `ProbeError` for what gives none."""

    def __init__(self, given: object, what: str = "batches") -> None:
        plain = isinstance(given, str | bytes | Mapping | torch.Tensor | torch.nn.Module)
        if plain or not (callable(given) or isinstance(given, Iterable)):
            raise ProbeError(f"{what}: {_FORMS}, not {shown(given)}")
        self._what, self._given = what, given
        self._make = _maker(given) if callable(given) and not isinstance(given, Iterable) else None
        self._source: Iterator[Any] | None = given if isinstance(given, Iterator) else None
        self._kept: list[Any] = []

    @property
    def note(self) -> str:
        """What cannot be put back, in words; nothing where all is."""
        if self._source is None:
            return ""
        return (
            f"{self._what} is an iterator, and its next {len(self._kept)} are used up: give a list, a DataLoader or a "
            "function of a seed to keep them."
        )

    def keep(self, count: int) -> None:
        """Make sure of so many batches of an iterator. Raises `ProbeError` if it ends before."""
        if self._source is None:
            return
        self._kept += itertools.islice(self._source, max(0, count - len(self._kept)))
        if len(self._kept) < count:
            raise ProbeError(
                f"{self._what} ended after {len(self._kept)}, and {count} are needed for this budget: give an iterator "
                "with that many, or a list, a DataLoader or a function, which are gone through again"
            )

    def take(self, seed: int, count: int) -> Iterator[Any]:
        """So many batches, in the order of a seed; the generators are those of the seed already."""
        left = count
        while left > 0:
            before = left
            for batch in self._epoch(seed):
                yield batch
                left -= 1
                if left == 0:
                    return
            if left == before:
                raise ProbeError(f"{self._what} gave no batch; {count} are needed: {_FORMS}")

    def _epoch(self, seed: int) -> Iterable[Any]:
        if self._make is not None:
            return self._make(seed)
        held = self._kept if self._source is not None else self._given
        if isinstance(held, Sequence):
            return random.Random(seed).sample(list(held), len(held))
        return held  # type: ignore[return-value]  # an iterable, see __init__

    def generators(self) -> Iterator[Any]:
        """The random generators that it holds, as far as they can be found."""
        yield from {id(each): each for each in _within(self._given, 4) if _is_generator(each)}.values()


def _within(held: object, depth: int) -> Iterator[object]:
    """What an object holds, and what that holds, a few levels down: attributes, what a function closes over or names,
    members of short lists. Not what is in tensors and networks."""
    yield held
    if depth == 0 or isinstance(held, _CLOSED) or _is_generator(held):
        return
    inner = [*getattr(held, "__dict__", {}).values(), getattr(held, "__self__", None)]
    if isinstance(held, FunctionType):
        inner += [held.__globals__.get(name) for name in held.__code__.co_names]
        with contextlib.suppress(ValueError):  # a cell that is empty
            inner += [cell.cell_contents for cell in held.__closure__ or ()]
    elif isinstance(held, functools.partial):
        inner += [held.func, *held.args, *held.keywords.values()]
    elif isinstance(held, list | tuple) and len(held) <= _SHORT:
        inner += held
    for each in inner:
        yield from _within(each, depth - 1)


def _maker(given: Callable[..., Any]) -> Callable[[int], Iterable[Any]]:
    """A function of a seed, whichever of the two forms was given."""
    try:
        parameters = list(inspect.signature(given).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1:
        raise ProbeError(f"batches is called with a seed, or with nothing, and needs {len(needed)} arguments")

    def make(seed: int) -> Iterable[Any]:
        made = given(seed) if parameters else given()
        if not isinstance(made, Iterable):
            raise ProbeError(f"the function batches gave {shown(made)}: {_FORMS}")
        return made

    return make


def _is_generator(value: object) -> bool:
    if isinstance(value, torch.Generator | random.Random):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.random.Generator)
