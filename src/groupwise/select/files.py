"""Selectors as plain data: what a plan file says under `match`.

    "backbone.*"                                  a glob
    { role = "norm", ndim = 1 }                   several keys: and
    ["neck.*", { kind = "Conv2d" }]               a list: or; so too a list of values, { role = ["norm", "bias"] }
    { inside = "Block", not = { role = "bias" } } negation
    { any = […], all = […] }                      where the plain forms do not nest

Numbers (`ndim`, `size`, `depth`) are a number or `{ min, max }`; `shape` is a list of sizes with `"*"` for any;
`magnitude` is `{ above, below, of }` and `statistic` is `{ name, above, below }`.

`encode` writes the shortest of these, and `decode(encode(s)) == s`. Data may come from strangers: whatever cannot be
read raises `SelectorError`, nesting and length are bounded, and no text is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, final

from groupwise._spelling import number_from_text, shown
from groupwise.errors import SelectorError, unknown, within
from groupwise.select.by_fact import depth, ndim, role, shape, size, tag
from groupwise.select.by_place import inside, kind, name, network, regex
from groupwise.select.by_value import magnitude, statistic
from groupwise.select.selectors import AllOf, AnyOf, Atom, Name, Not, Selector, all_of, any_of

DEEPEST = 32  # levels of nesting
MOST = 100_000  # parts altogether


def decode(data: object) -> Selector:
    """The selector that plain data describes.

    Raises:
        SelectorError: data of another form, an unknown key, or nesting that is too deep.
    """
    return _Reader().read(data, 0)


def encode(selector: Selector) -> Any:
    """The shortest plain data that describes a selector: text, a table, or a list of both.

    Raises:
        SelectorError: it holds a `where`, which is Python only, or nests too deep to be read back.
    """
    return _written(selector, 0)


def _text(word: str, make: Callable[[str], Selector]) -> Callable[[object], Selector]:
    def read(value: object) -> Selector:
        if not isinstance(value, str):
            raise SelectorError(f"{word} takes text, not {_described(value)}")
        return make(value)

    return read


def _number(make: Callable[..., Selector]) -> Callable[[object], Selector]:
    def read(value: object) -> Selector:
        if isinstance(value, Mapping):
            return make(**{word: _whole(end) for word, end in _fields(value, ("min", "max")).items()})
        return make(_whole(value))

    return read


def _read_shape(value: object) -> Selector:
    if not isinstance(value, list | tuple):
        raise SelectorError(f"a shape is a list of sizes with '*' for any, not {_described(value)}")
    return shape([None if size == "*" or size is None else _whole(size) for size in value])


def _read_magnitude(value: object) -> Selector:
    given = _fields(value, ("above", "below", "of"))
    return magnitude(above=_real(given.get("above")), below=_real(given.get("below")), of=given.get("of", "mean_abs"))


def _read_statistic(value: object) -> Selector:
    given = _fields(value, ("name", "above", "below"))
    measured = given.get("name")
    if not isinstance(measured, str):
        raise SelectorError("statistic needs the name of one, as { name = 'grad_norm', above = 1.0 }")
    return statistic(measured, above=_real(given.get("above")), below=_real(given.get("below")))


_ATOMS: Mapping[str, Callable[[object], Selector]] = {
    "name": _text("name", name),
    "regex": _text("regex", regex),
    "kind": _text("kind", kind),
    "inside": _text("inside", inside),
    "role": _text("role", role),
    "network": _text("network", network),
    "tag": _text("tag", tag),
    "ndim": _number(ndim),
    "size": _number(size),
    "depth": _number(depth),
    "shape": _read_shape,
    "magnitude": _read_magnitude,
    "statistic": _read_statistic,
}
KEYS = (*_ATOMS, "not", "any", "all")


@final
@dataclass(slots=True)
class _Reader:
    """One reading: it counts what it has read, so that data that repeats itself ends."""

    parts: int = 0

    def read(self, data: object, level: int) -> Selector:
        _check(level)
        self._count()
        if isinstance(data, str):
            return name(data)
        if isinstance(data, Mapping):
            return self._table(data, level)
        if isinstance(data, list | tuple):
            return any_of([self.read(part, level + 1) for part in data])
        raise SelectorError(f"{_described(data)} is no selector; give a glob, a table of {', '.join(KEYS)}, or a list")

    def _count(self) -> None:
        self.parts += 1
        if self.parts > MOST:
            raise SelectorError(f"a selector has at most {MOST} parts")

    def _table(self, table: Mapping[Any, object], level: int) -> Selector:
        if not table:
            raise SelectorError(f"an empty table selects nothing; its keys are {', '.join(KEYS)}")
        parts = []
        for key, value in table.items():
            if key not in KEYS:
                raise SelectorError(unknown("key", _word(key), KEYS))
            with within(key):
                parts.append(self._entry(key, value, level))
        return all_of(parts)

    def _entry(self, key: str, value: object, level: int) -> Selector:
        if key == "not":
            return ~self.read(value, level + 1)
        if key in ("any", "all"):
            if not isinstance(value, list | tuple):
                raise SelectorError(f"it takes a list of selectors, not {_described(value)}")
            parts = [self.read(part, level + 1) for part in value]
            return any_of(parts) if key == "any" else all_of(parts)
        if key == "shape" and not (isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple)):
            return _read_shape(value)
        if not isinstance(value, list | tuple):
            return _ATOMS[key](value)
        return any_of([self._value(key, one) for one in value])

    def _value(self, key: str, value: object) -> Selector:
        self._count()
        return _ATOMS[key](value)


def _written(selector: Selector, level: int) -> Any:
    _check(level)
    if isinstance(selector, Name):
        return selector.glob
    if isinstance(selector, AnyOf):
        entry = _one_key(selector)
        return _listed(selector, level) if entry is None or entry[0] == Name.key else dict([entry])
    if isinstance(selector, AllOf):
        entries = [_entry(part, level) for part in selector.parts]
        repeated = len({key for key, _ in entries}) < len(entries)
        return {"all": [_written(part, level + 1) for part in selector.parts]} if repeated else dict(entries)
    return dict([_entry(selector, level)])


def _entry(part: Selector, level: int) -> tuple[str, Any]:
    """A selector as one key of a table at `level`."""
    if isinstance(part, Atom):
        return part.entry()
    if isinstance(part, Not):
        return "not", _written(part.part, level + 1)
    if isinstance(part, AnyOf):
        return _one_key(part) or ("any", _listed(part, level))
    raise SelectorError(f"{part} has no form in a file")


def _one_key(chosen: AnyOf) -> tuple[str, list[Any]] | None:
    """An "or" of atoms that share a key, as that key and their values."""
    entries = [part.entry() for part in chosen.parts if isinstance(part, Atom)]
    if len(entries) < len(chosen.parts) or len({key for key, _ in entries}) > 1:
        return None
    return entries[0][0], [value for _, value in entries]


def _listed(chosen: AnyOf, level: int) -> list[Any]:
    """An "or" as a list: a glob is bare text, and neighbours that share a key share a table."""
    found: list[Any] = []
    for atoms, group in groupby(chosen.parts, lambda part: isinstance(part, Atom) and not isinstance(part, Name)):
        if not atoms:
            found += [_written(part, level + 1) for part in group]
            continue
        _check(level + 1)
        for key, entries in groupby((part.entry() for part in group if isinstance(part, Atom)), lambda entry: entry[0]):
            values = [value for _, value in entries]
            found.append({key: values[0] if len(values) == 1 else values})
    return found


def _check(level: int) -> None:
    if level > DEEPEST:
        raise SelectorError(f"a selector nests at most {DEEPEST} levels deep")


def _fields(value: object, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SelectorError(f"it takes a table of {', '.join(known)}, not {_described(value)}")
    for key in value:
        if key not in known:
            raise SelectorError(unknown("key", _word(key), known))
    return dict(value)


def _real(value: object) -> Any:
    """A number from text that says one (YAML reads 1e-3 as text); anything else as it is, for its selector to judge."""
    number = number_from_text(value)
    if isinstance(number, str):
        raise SelectorError(f"{shown(value)} is no number")
    return number


def _whole(value: object) -> Any:
    number = _real(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _word(key: object) -> str:
    return key if isinstance(key, str) else _described(key)


def _described(data: object) -> str:
    """Data in an error message: text in full if short, anything else by its type (its repr may be without end)."""
    return shown(data) if isinstance(data, str) else type(data).__name__
