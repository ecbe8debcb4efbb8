"""Selectors on where a parameter is held: its names as regular expressions, the classes around it, network and depth.

Each asks a question of one place; a tied parameter is selected if any of its places answers yes.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, final

from groupwise._spelling import shown
from groupwise.errors import SelectorError, nearest
from groupwise.select.globs import check_length, repairs
from groupwise.select.info import Occurrence, ParameterInfo
from groupwise.select.selectors import Atom, Infos, Name, Selector, any_of

if TYPE_CHECKING:
    from groupwise.select.automata import Automaton


def name(glob: str) -> Selector:
    """Parameters whose dotted name fits a glob; `*` crosses dots and case matters.

    A glob without wildcards is a path: the parameter of that name, or all under the module of that name. `/` and `.`
    are the same separator.

    Raises:
        SelectorError: no text.
    """
    return Name(glob)


def regex(pattern: str) -> Selector:
    """Parameters with a name that a regular expression describes from end to end (`re.fullmatch`), as a glob does.

    Matching takes time in proportion to the name, whatever the pattern. So back references, conditions, atomic groups
    and possessive repetitions are refused; `where` takes any condition in Python.

    Raises:
        SelectorError: the pattern does not compile, is longer than 2,000 characters, or holds one of these.
    """
    return Regex(pattern)


def kind(*classes: str | type) -> Selector:
    """Parameters held directly by a layer of one of these classes, subclasses included; classes or their bare names.

    Raises:
        SelectorError: nothing given, or a dotted name.
    """
    return any_of(Kind(_class_name("kind", given)) for given in _some("kind", classes))


def inside(*classes: str | type) -> Selector:
    """Parameters under a module of one of these classes, at any distance; what the module holds itself counts too.

    Raises:
        SelectorError: nothing given, or a dotted name.
    """
    return any_of(Inside(_class_name("inside", given)) for given in _some("inside", classes))


def network(*keys: str) -> Selector:
    """Parameters of a network, by its key in the mapping of networks.

    Raises:
        SelectorError: nothing given, or no text.
    """
    if not keys:
        raise SelectorError("network() needs at least one argument")
    return any_of(map(Network, keys))


@final
@dataclass(frozen=True, slots=True)
class Regex(Atom):
    """`regex(pattern)`."""

    pattern: str
    _automaton: Automaton = field(init=False, repr=False, compare=False)

    key: ClassVar[str] = "regex"

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not self.pattern:
            raise SelectorError("regex() takes the text of a regular expression")
        check_length(self.key, self.pattern)
        from groupwise.select.automata import Automaton  # which few plans need

        object.__setattr__(self, "_automaton", Automaton(self.pattern))

    def matches(self, info: ParameterInfo) -> bool:
        """Whether the pattern covers one of its names."""
        return any(map(self._automaton.covers, (*info.names, *info.aliases)))

    def suggest(self, infos: Infos) -> Iterator[str]:
        """The pattern with both ends open where that helps, else names that look like it."""
        names = [name for info in infos for name in (*info.names, *info.aliases)]
        if any(map(self._automaton.found_in, names)):
            yield f"regex('.*({self.pattern}).*')"
        yield from repairs(re.sub(r"[\\^$()]", "", self.pattern), names)

    @property
    def text(self) -> str:
        """The pattern."""
        return self.pattern

    def entry(self) -> tuple[str, str]:
        """The pattern."""
        return self.key, self.pattern


class _Word(Atom):
    """An atom that asks for one word among those that a place shows."""

    __slots__ = ()

    word: str

    def __post_init__(self) -> None:
        if not isinstance(self.word, str) or not self.word:
            raise SelectorError(f"{self.key}() takes text that is not empty, not {type(self.word).__name__}")
        check_length(self.key, self.word)

    @abc.abstractmethod
    def words(self, occurrence: Occurrence) -> Iterable[str]:
        """The words that a place shows."""

    def suggest(self, infos: Infos) -> Iterator[str]:
        """The nearest words that some place shows; all of them, if few, where none is near."""
        shown = list(dict.fromkeys(w for info in infos for p in info.occurrences for w in sorted(self.words(p)) if w))
        yield from nearest(self.word, shown) or (shown if len(shown) <= 8 else ())

    @property
    def text(self) -> str:
        """The word."""
        return self.word

    def entry(self) -> tuple[str, str]:
        """The word."""
        return self.key, self.word


@final
@dataclass(frozen=True, slots=True)
class Kind(_Word):
    """`kind(class)`."""

    word: str

    key: ClassVar[str] = "kind"
    by_kind: ClassVar[bool] = True

    def words(self, occurrence: Occurrence) -> Iterable[str]:
        """Class names of the layer that holds it."""
        return occurrence.kinds

    def matches(self, info: ParameterInfo) -> bool:
        """Whether a layer of that class holds it."""
        return any(self.word in occurrence.kinds for occurrence in info.occurrences)

    def suggest(self, infos: Infos) -> Iterator[str]:
        """`inside`, where the class only encloses; the nearest classes otherwise."""
        if any(map(Inside(self.word).matches, infos)):
            yield f"inside({self.word})"
        yield from super(Kind, self).suggest(infos)


@final
@dataclass(frozen=True, slots=True)
class Inside(_Word):
    """`inside(class)`."""

    word: str

    key: ClassVar[str] = "inside"
    by_kind: ClassVar[bool] = True

    def words(self, occurrence: Occurrence) -> Iterable[str]:
        """Class names of all that encloses it."""
        return occurrence.ancestors

    def matches(self, info: ParameterInfo) -> bool:
        """Whether a module of that class encloses it."""
        return any(self.word in occurrence.ancestors for occurrence in info.occurrences)


@final
@dataclass(frozen=True, slots=True)
class Network(_Word):
    """`network(key)`."""

    word: str

    key: ClassVar[str] = "network"
    by_kind: ClassVar[bool] = True

    def words(self, occurrence: Occurrence) -> Iterable[str]:
        """The network's key."""
        return (occurrence.network,)

    def matches(self, info: ParameterInfo) -> bool:
        """Whether it belongs to that network."""
        return any(self.word == occurrence.network for occurrence in info.occurrences)


def _some(word: str, given: tuple[str | type, ...]) -> tuple[str | type, ...]:
    if not given:
        raise SelectorError(f"{word}() needs at least one argument")
    return given


def _class_name(word: str, given: str | type) -> str:
    name = given.__name__ if isinstance(given, type) else given
    if isinstance(name, str) and "." in name:
        raise SelectorError(f"{word}({shown(name)}): give the bare class name, {shown(name.rpartition('.')[2])}")
    return name
