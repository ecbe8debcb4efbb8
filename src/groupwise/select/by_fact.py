"""Selectors on what a parameter is: roles, tags, shape, and three numbers (dimensions, elements, depth).

A number is asked for exactly, or as a range whose ends belong to it.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from groupwise.errors import SelectorError, nearest, unknown
from groupwise.select.globs import check_length
from groupwise.select.info import ROLES, ParameterInfo
from groupwise.select.selectors import Atom, Infos, Selector, any_of


def role(*roles: str) -> Selector:
    """Parameters with one of these roles (`ROLES`): weight, bias, norm, embedding, matrix, …

    Raises:
        SelectorError: nothing given, or no such role.
    """
    if not roles:
        raise SelectorError(f"role() needs at least one of: {', '.join(ROLES)}")
    return any_of(map(Role, roles))


def tag(*tags: str) -> Selector:
    """Parameters with one of these tags (`parameters_of(…, tags=…)`).

    Raises:
        SelectorError: nothing given, or no text.
    """
    if not tags:
        raise SelectorError("tag() needs at least one argument")
    return any_of(map(Tag, tags))


def ndim(value: int | None = None, *, min: int | None = None, max: int | None = None) -> Selector:
    """Parameters with so many dimensions, or with a number of them within `min` and `max`.

    Raises:
        SelectorError: no whole number, or a range that holds none.
    """
    return Ndim(*_range("ndim", value, min, max))


def size(value: int | None = None, *, min: int | None = None, max: int | None = None) -> Selector:
    """Parameters with so many elements, or with a number of them within `min` and `max`.

    Raises:
        SelectorError: no whole number, or a range that holds none.
    """
    return Size(*_range("size", value, min, max))


def depth(value: int | None = None, *, min: int | None = None, max: int | None = None) -> Selector:
    """Parameters at a level, or between two: 0 is the stem, 1…n are the numbered blocks, n + 1 is the top.

    Raises:
        SelectorError: no whole number, or a range that holds none.
    """
    return Depth(*_range("depth", value, min, max))


def shape(sizes: Sequence[int | None]) -> Selector:
    """Parameters of this shape; None stands for any size.

    Raises:
        SelectorError: not a sequence of sizes.
    """
    if not isinstance(sizes, list | tuple) or not all(size is None or _is_whole(size) for size in sizes):
        raise SelectorError("shape() takes a tuple of sizes, None for any, as (None, 768)")
    return Shape(tuple(sizes))


@final
@dataclass(frozen=True, slots=True)
class Role(Atom):
    """`role(word)`."""

    word: str

    key: ClassVar[str] = "role"
    by_kind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.word not in ROLES:
            given = self.word if isinstance(self.word, str) else type(self.word).__name__
            raise SelectorError(unknown("role", given, ROLES))

    def matches(self, info: ParameterInfo) -> bool:
        """Whether it has the role."""
        return self.word in info.roles

    def suggest(self, infos: Infos) -> Iterator[str]:
        """The roles that occur."""
        found = frozenset[str]().union(*(info.roles for info in infos))
        yield from (f"role({word})" for word in ROLES if word in found)

    @property
    def text(self) -> str:
        """The role."""
        return self.word

    def entry(self) -> tuple[str, str]:
        """The role."""
        return self.key, self.word


@final
@dataclass(frozen=True, slots=True)
class Tag(Atom):
    """`tag(word)`."""

    word: str

    key: ClassVar[str] = "tag"
    by_kind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.word, str) or not self.word:
            raise SelectorError(f"tag() takes text that is not empty, not {type(self.word).__name__}")
        check_length(self.key, self.word)

    def matches(self, info: ParameterInfo) -> bool:
        """Whether it has the tag."""
        return self.word in info.tags

    def suggest(self, infos: Infos) -> Iterator[str]:
        """The nearest tags, or all of them."""
        found = sorted(frozenset[str]().union(*(info.tags for info in infos)))
        yield from nearest(self.word, found) or found

    @property
    def text(self) -> str:
        """The tag."""
        return self.word

    def entry(self) -> tuple[str, str]:
        """The tag."""
        return self.key, self.word


class _Within(Atom):
    """An atom that asks for a number between two ends, either of which may be open."""

    __slots__ = ()

    low: int | None
    high: int | None

    @abc.abstractmethod
    def numbers(self, info: ParameterInfo) -> tuple[int, ...]:
        """The parameter's numbers; one of them in the range is enough."""

    def matches(self, info: ParameterInfo) -> bool:
        """Whether one of its numbers lies in the range."""
        low, high = self.low, self.high
        return any((low is None or n >= low) and (high is None or n <= high) for n in self.numbers(info))

    def suggest(self, infos: Infos) -> Iterator[str]:
        """The numbers that occur: all where they are few, else their ends."""
        found = sorted({number for info in infos for number in self.numbers(info)})
        if len(found) > 4:
            yield f"{self.key}({found[0]} to {found[-1]})"
        else:
            yield from (f"{self.key}({number})" for number in found)

    @property
    def text(self) -> str:
        """`3`, or `min=1, max=3`."""
        if self.low == self.high:
            return str(self.low)
        ends = (("min", self.low), ("max", self.high))
        return ", ".join(f"{word}={number}" for word, number in ends if number is not None)

    def entry(self) -> tuple[str, Any]:
        """The number, or its ends."""
        ends = (("min", self.low), ("max", self.high))
        exact = self.low == self.high
        return self.key, self.low if exact else {word: number for word, number in ends if number is not None}


@final
@dataclass(frozen=True, slots=True)
class Ndim(_Within):
    """`ndim(…)`."""

    low: int | None
    high: int | None

    key: ClassVar[str] = "ndim"
    by_kind: ClassVar[bool] = True

    def numbers(self, info: ParameterInfo) -> tuple[int, ...]:
        """Its dimensions."""
        return (len(info.shape),)


@final
@dataclass(frozen=True, slots=True)
class Size(_Within):
    """`size(…)`."""

    low: int | None
    high: int | None

    key: ClassVar[str] = "size"
    by_kind: ClassVar[bool] = True

    def numbers(self, info: ParameterInfo) -> tuple[int, ...]:
        """Its elements."""
        return (info.numel,)


@final
@dataclass(frozen=True, slots=True)
class Depth(_Within):
    """`depth(…)`."""

    low: int | None
    high: int | None

    key: ClassVar[str] = "depth"

    def numbers(self, info: ParameterInfo) -> tuple[int, ...]:
        """Its levels, one per place."""
        return tuple([occurrence.depth for occurrence in info.occurrences])


@final
@dataclass(frozen=True, slots=True)
class Shape(Atom):
    """`shape(sizes)`."""

    sizes: tuple[int | None, ...]

    key: ClassVar[str] = "shape"
    by_kind: ClassVar[bool] = True

    def matches(self, info: ParameterInfo) -> bool:
        """Whether its shape is this one wherever this one says."""
        given = info.shape
        return len(given) == len(self.sizes) and all(
            s is None or s == g for s, g in zip(self.sizes, given, strict=True)
        )

    def suggest(self, infos: Infos) -> Iterator[str]:
        """The shapes with most sizes in common, dimension by dimension, among those with as many dimensions."""
        found = {info.shape for info in infos}
        alike = [other for other in found if len(other) == len(self.sizes)] or list(found)
        common = {other: sum(a in (None, b) for a, b in zip(self.sizes, other, strict=False)) for other in alike}
        yield from (str(Shape(other)) for other in sorted(alike, key=lambda other: (-common[other], other))[:3])

    @property
    def text(self) -> str:
        """`64, *, 3`."""
        return ", ".join("*" if size is None else str(size) for size in self.sizes)

    def entry(self) -> tuple[str, list[int | str]]:
        """The sizes, `"*"` for any."""
        return self.key, ["*" if size is None else size for size in self.sizes]


def _range(word: str, value: int | None, low: int | None, high: int | None) -> tuple[int | None, int | None]:
    given = [number for number in (value, low, high) if number is not None]
    if not given or (value is not None and len(given) > 1):
        raise SelectorError(f"{word}() takes a number, or min= or max= or both")
    if not all(map(_is_whole, given)):
        raise SelectorError(f"{word}() counts, so it takes whole numbers from 0 upward")
    if low is not None and high is not None and low > high:
        raise SelectorError(f"{word}(): min is above max, so it can match nothing")
    return (value, value) if value is not None else (low, high)


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63
