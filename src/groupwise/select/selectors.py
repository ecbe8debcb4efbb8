"""Selectors: pure predicates over a parameter, closed under `&`, `|`, `~` and `-`.

They form a Boolean algebra on *parameters*: an atom holds of a parameter if it holds at any of its places, and the
operators combine those answers. So `~s` is exactly where `s` is not, for tied parameters too. Selectors are values:
they compare by structure, print as a label, and are written to files (`files`). Nested `&` and `|` are flattened, equal
parts said once, and `~~s` is `s`, so that what is read back is equal to what was written.
"""

from __future__ import annotations

import abc
import functools
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar, TypeAlias, final

from groupwise._pickling import Public, Reduced
from groupwise._spelling import shown
from groupwise.errors import SelectorError
from groupwise.select.globs import Accepts, beginning, check_length, compiled, repairs
from groupwise.select.info import ParameterInfo
from groupwise.select.table import ParameterTable

Infos = Sequence[ParameterInfo]


class Selector(abc.ABC):
    """Which parameters? Combine with `&` (and), `|` (or), `~` (not), `-` (but not); a glob may stand on one side."""

    __slots__ = ()

    @abc.abstractmethod
    def matches(self, info: ParameterInfo) -> bool:
        """Whether the parameter is selected."""

    @abc.abstractmethod
    def suggest(self, infos: Infos) -> Iterator[str]:
        """What exists that looks like it, for a selector that matches none of `infos`."""

    @property
    @abc.abstractmethod
    def dynamic(self) -> bool:
        """Whether the answer depends on values that training changes, so that matching nothing is no mistake."""

    def _among(self, table: ParameterTable, candidates: Sequence[int]) -> list[int]:
        """The positions of those of the `candidates` in a table that `matches` says yes to, in their order."""
        return [i for i in candidates if self.matches(table.infos[i])]

    def __and__(self, other: Selector | str) -> Selector:
        return all_of((self, selector(other))) if isinstance(other, Selector | str) else NotImplemented

    def __rand__(self, other: str) -> Selector:
        return all_of((selector(other), self)) if isinstance(other, str) else NotImplemented

    def __or__(self, other: Selector | str) -> Selector:
        return any_of((self, selector(other))) if isinstance(other, Selector | str) else NotImplemented

    def __ror__(self, other: str) -> Selector:
        return any_of((selector(other), self)) if isinstance(other, str) else NotImplemented

    def __sub__(self, other: Selector | str) -> Selector:
        return all_of((self, ~selector(other))) if isinstance(other, Selector | str) else NotImplemented

    def __rsub__(self, other: str) -> Selector:
        return all_of((selector(other), ~self)) if isinstance(other, str) else NotImplemented

    def __invert__(self) -> Selector:
        return self.part if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise SelectorError(f"{self} is neither true nor false; combine selectors with & | ~, not with and, or, not")


class Atom(Selector):
    """A selector with no selector inside: one question about a parameter."""

    __slots__ = ()

    key: ClassVar[str]  # its word, in Python and in a file
    by_kind: ClassVar[bool] = False  # whether it reads nothing but what the kinds of a `ParameterTable` tell apart

    @property
    @abc.abstractmethod
    def text(self) -> str:
        """What it asks for, in a label."""

    @abc.abstractmethod
    def entry(self) -> tuple[str, Any]:
        """Key and plain value in a file; raises where there is no such form."""

    @property
    def dynamic(self) -> bool:
        """Whether it reads values that training changes."""
        return False

    def _among(self, table: ParameterTable, candidates: Sequence[int]) -> list[int]:
        """As of any selector; where it can be, it is asked once for each kind."""
        if not self.by_kind:
            return super()._among(table, candidates)
        kinds = table.kinds
        chosen = {kind for kind in {kinds[i] for i in candidates} if self.matches(table.samples[kind])}
        return [i for i in candidates if kinds[i] in chosen]

    def __str__(self) -> str:
        return f"{self.key}({self.text})"

    def __reduce__(self) -> Reduced:
        key, value = self.entry()
        return Public("groupwise.select:decode"), ({key: value},)


@final
@dataclass(frozen=True, slots=True)
class Name(Atom):
    """`name(glob)`."""

    glob: str
    _accepts: Accepts = field(init=False, repr=False, compare=False)

    key: ClassVar[str] = "name"

    def __post_init__(self) -> None:
        if not isinstance(self.glob, str) or not self.glob.strip("./"):
            raise SelectorError("name() takes a glob over dotted names, as 'backbone.*'")
        check_length(self.key, self.glob)
        object.__setattr__(self, "_accepts", compiled(self.glob))

    def matches(self, info: ParameterInfo) -> bool:
        """Whether any of its names fits the glob."""
        return any(map(self._accepts, info.spellings))

    def _among(self, table: ParameterTable, candidates: Sequence[int]) -> list[int]:
        """As of any selector; most names are told by how they begin."""
        first, others, accepts, begin = table.first, table.others, self._accepts, beginning(self.glob)
        if not self.glob.strip("*"):
            return list(candidates)
        return [
            i
            for i in candidates
            if (first[i].startswith(begin) and accepts(first[i])) or (i in others and any(map(accepts, others[i])))
        ]

    def suggest(self, infos: Infos) -> Iterator[str]:
        """Globs and names that exist and look like this one."""
        yield from repairs(self.glob, [name for info in infos for name in (*info.names, *info.aliases)])

    @property
    def text(self) -> str:
        """The glob."""
        return self.glob

    def entry(self) -> tuple[str, str]:
        """The glob, under `name`."""
        return self.key, self.glob

    def __str__(self) -> str:
        return self.glob


@final
@dataclass(frozen=True, slots=True)
class Not(Selector):
    """`~part`."""

    part: Selector

    def matches(self, info: ParameterInfo) -> bool:
        """Whether `part` does not select the parameter."""
        return not self.part.matches(info)

    def _among(self, table: ParameterTable, candidates: Sequence[int]) -> list[int]:
        """Those that are not among `part`'s."""
        found = frozenset(self.part._among(table, candidates))
        return [i for i in candidates if i not in found]

    def suggest(self, infos: Infos) -> Iterator[str]:
        """Nothing is like a negation: it matched nothing because its part matches everything."""
        yield f"every parameter is {self.part}"

    @property
    def dynamic(self) -> bool:
        """Whether its part is."""
        return self.part.dynamic

    def __str__(self) -> str:
        return f"~{_bracketed(self.part)}"

    def __reduce__(self) -> Reduced:
        return operator.invert, (self.part,)


@final
@dataclass(frozen=True, slots=True)
class AllOf(Selector):
    """`a & b & …`, two parts at least."""

    parts: tuple[Selector, ...]

    def matches(self, info: ParameterInfo) -> bool:
        """Whether every part selects the parameter."""
        return all(part.matches(info) for part in self.parts)

    def _among(self, table: ParameterTable, candidates: Sequence[int]) -> list[int]:
        """What every part leaves of those before it: a later one is not asked for what an earlier one rules out."""
        left = list(candidates)
        for part in self.parts:
            left = part._among(table, left)
        return left

    def suggest(self, infos: Infos) -> Iterator[str]:
        """What its parts that match nothing suggest; how much each matches where only the combination is empty."""
        counts = [sum(map(part.matches, infos)) for part in self.parts]
        if all(counts):
            yield from (f"{part} (alone: {count})" for part, count in zip(self.parts, counts, strict=True))
        for part, count in zip(self.parts, counts, strict=True):
            if not count:
                yield from part.suggest(infos)

    @property
    def dynamic(self) -> bool:
        """Whether any part is."""
        return any(part.dynamic for part in self.parts)

    def __str__(self) -> str:
        return " & ".join(map(_bracketed, self.parts))

    def __reduce__(self) -> Reduced:
        return functools.reduce, (operator.and_, self.parts)


@final
@dataclass(frozen=True, slots=True)
class AnyOf(Selector):
    """`a | b | …`, two parts at least."""

    parts: tuple[Selector, ...]

    def matches(self, info: ParameterInfo) -> bool:
        """Whether some part selects the parameter."""
        return any(part.matches(info) for part in self.parts)

    def _among(self, table: ParameterTable, candidates: Sequence[int]) -> list[int]:
        """What any part finds; a later one is not asked for what an earlier one has found."""
        found: set[int] = set()
        for part in self.parts:
            found.update(part._among(table, [i for i in candidates if i not in found] if found else candidates))
        return [i for i in candidates if i in found]

    def suggest(self, infos: Infos) -> Iterator[str]:
        """What its parts suggest."""
        for part in self.parts:
            yield from part.suggest(infos)

    @property
    def dynamic(self) -> bool:
        """Whether any part is."""
        return any(part.dynamic for part in self.parts)

    def __str__(self) -> str:
        return " | ".join(_calls(self))

    def __reduce__(self) -> Reduced:
        return functools.reduce, (operator.or_, self.parts)


Match: TypeAlias = "str | Selector | Sequence[str | Selector]"


def selector(given: Match) -> Selector:
    """A selector as it is, a glob from text, and "any of" from a list or tuple of both.

    Raises:
        SelectorError: anything else, or an empty list.
    """
    if isinstance(given, Selector):
        return given
    if isinstance(given, str):
        return Name(given)
    if isinstance(given, list | tuple):
        return any_of(map(selector, given))
    if isinstance(given, type):
        raise SelectorError(f"a class is not a selector; for the parameters of its layers write kind({given.__name__})")
    raise SelectorError(f"{type(given).__name__} is not a selector; {_way_out(given)}")


def _way_out(given: object) -> str:
    """What may have been meant. A rule belongs to no model, so it selects modules and tensors by name."""
    if callable(getattr(given, "named_parameters", None)):
        return 'a rule names a module of the model by its dotted path: "head", or "head.*" for what is in it'
    if getattr(given, "requires_grad", None) is not None:
        return 'a rule names a parameter by its dotted path, as in "head.weight"'
    if isinstance(given, Iterator):
        return 'a rule names parameters by their dotted paths, as in "head" for what head.parameters() gives'
    return "write where(predicate)" if callable(given) else "give a glob, a selector, or a list of them"


def select(chosen: Match, infos: Iterable[ParameterInfo]) -> tuple[ParameterInfo, ...]:
    """The selected ones among `infos`, in their order. Raises `SelectorError` for what `parameters_of` did not give."""
    return tuple(filter(selector(chosen).matches, checked_infos(infos)))


def checked_infos(infos: object) -> tuple[ParameterInfo, ...]:
    """The infos, as they are. Raises `SelectorError` for anything else, a model say."""
    given = tuple(infos) if isinstance(infos, Iterable) and not isinstance(infos, str | bytes) else None
    if given is None or not all(isinstance(info, ParameterInfo) for info in given):
        raise SelectorError(f"{shown(infos)} are no infos of parameters: give what parameters_of(model) returns")
    return given


def positions(chosen: Selector, table: ParameterTable) -> list[int]:
    """The positions in a table of the parameters that a selector selects, in their order."""
    return chosen._among(table, range(len(table.infos)))


def any_of(parts: Iterable[Selector]) -> Selector:
    """The flat "or" of some selectors; one alone is itself."""
    given = list(parts)
    flat = tuple(dict.fromkeys(p for part in given for p in (part.parts if isinstance(part, AnyOf) else (part,))))
    if not flat:
        raise SelectorError("an empty list selects nothing; give at least one selector")
    return AnyOf(flat) if len(flat) > 1 else flat[0]


def all_of(parts: Iterable[Selector]) -> Selector:
    """The flat "and" of some selectors; one alone is itself."""
    given = list(parts)
    flat = tuple(dict.fromkeys(p for part in given for p in (part.parts if isinstance(part, AllOf) else (part,))))
    if not flat:
        raise SelectorError("an empty 'all' says nothing; give at least one selector")
    return AllOf(flat) if len(flat) > 1 else flat[0]


def _bracketed(part: Selector) -> str:
    text = str(part)
    return text if isinstance(part, Atom | Not) or (isinstance(part, AnyOf) and len(_calls(part)) == 1) else f"({text})"


def _calls(chosen: AnyOf) -> list[str]:
    """The texts of an "or", where neighbours of one family share one call: `role(norm, bias)`."""
    texts: list[str] = []
    for family, group in groupby(chosen.parts, type):
        parts = list(group)
        atoms = [part for part in parts if isinstance(part, Atom) and not isinstance(part, Name)]
        joined = [f"{atoms[0].key}({', '.join(part.text for part in atoms)})"] if len(atoms) > 1 else []
        texts += joined or ([str(part) for part in parts] if family is Name else list(map(_bracketed, parts)))
    return texts
