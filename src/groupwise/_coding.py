"""Frozen dataclasses as plain data, and back. The annotations of the fields are the schema; there is no other.

What is read comes from anywhere, so every value is checked against its annotation, and an error names
its place: `header.groups[0].clip.bound is 'x', not a number`. Keys that no field has are passed over, since a newer
writer may know more; a field that is missing has its default, or is missed.

JSON has no nan and no infinity: they are the texts "nan", "inf" and "-inf".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Union, final

from groupwise._spelling import shown
from groupwise.errors import GroupwiseError, listed, within

_NOT_FINITE: Final = ("nan", "inf", "-inf")
_NOTHING: Final[tuple[object, ...]] = (None, "", (), {}, [])
_WORDS: Final[Mapping[Any, str]] = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}


@final
@dataclass(frozen=True)
class Codec:
    """One way to write dataclasses.

    Args:
        error: what is raised for data that do not fit.
        kinds: classes that are written with their name under `kind`, by which a union of them is told apart.
        sparse: whether fields that say nothing (none, empty) are left out, if they have a default.
    """

    error: type[GroupwiseError]
    kinds: Mapping[str, type] = field(default_factory=dict)
    sparse: bool = False

    def encode(self, value: Any) -> Any:
        """A value as plain data: dicts, lists, text, numbers, bools and None."""
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = ((name, getattr(value, name), required) for name, (_, required) in _fields(type(value)).items())
            kind = {"kind": type(value).__name__} if self._is_kind(type(value)) else {}
            return kind | {
                name: self.encode(inner)
                for name, inner, required in fields
                if required or not self.sparse or inner not in _NOTHING
            }
        if isinstance(value, Mapping):
            return {key: self.encode(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.encode(inner) for inner in value]
        return spelled(value) if isinstance(value, float) else value

    def decode(self, wanted: Any, data: object, place: str) -> Any:
        """The value of the type `wanted` that plain data hold; `place` is what they are called in an error.

        Raises:
            GroupwiseError: of the class `error`: something does not fit; the message says where.
        """
        origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
        if origin in (Union, types.UnionType):
            return self._one_of(arguments, data, place)
        if dataclasses.is_dataclass(wanted):
            return self._object(wanted, data, place)
        if origin in (tuple, Sequence) and isinstance(data, list):
            return self._tuple(arguments, data, place)
        if origin is Mapping and isinstance(data, dict):
            return {key: self.decode(arguments[1], inner, f"{place}[{shown(key)}]") for key, inner in data.items()}
        if origin is Literal and isinstance(data, str) and data in arguments:
            return data
        if origin is None and _fits(wanted, data):
            return float(typing.cast(Any, data)) if wanted is float else data
        raise self.error(f"{place} is {shown(data)}, not {_described(wanted)}")

    def _one_of(self, options: tuple[Any, ...], data: object, place: str) -> Any:
        if data is None and types.NoneType in options:
            return None
        kind = data.get("kind") if isinstance(data, dict) else None
        named = [option for option in options if self._is_kind(option) and option.__name__ == kind]
        plain = [option for option in options if option is not types.NoneType and not self._is_kind(option)]
        if not named and not plain:
            raise self.error(f"{place} is {shown(data)}, not {_described(Union[options])}")  # noqa: UP007  of a tuple
        return self.decode((named or plain)[0], data, place)

    def _is_kind(self, option: Any) -> bool:
        return isinstance(option, type) and self.kinds.get(option.__name__) is option

    def _tuple(self, kinds: tuple[Any, ...], data: list[Any], place: str) -> tuple[Any, ...]:
        each = kinds if len(kinds) > 1 and kinds[-1] is not Ellipsis else kinds[:1] * len(data)
        if len(each) != len(data):
            raise self.error(f"{place} has {len(data)} elements, not {len(each)}")
        return tuple(self.decode(kind, data[i], f"{place}[{i}]") for i, kind in enumerate(each))

    def _object(self, cls: Any, data: object, place: str) -> Any:
        if not isinstance(data, dict) or (self._is_kind(cls) and data.get("kind") != cls.__name__):
            raise self.error(f"{place} is {shown(data)}, not {_described(cls)}")
        fields = _fields(cls)
        if missing := [name for name, (_, required) in fields.items() if required and name not in data]:
            raise self.error(f"{place} lacks {shown(missing[0])}")
        present = {name: hint for name, (hint, _) in fields.items() if name in data}
        values = {name: self.decode(hint, data[name], f"{place}.{name}") for name, hint in present.items()}
        with within(place):
            return cls(**values)


def spelled(value: float) -> float | str:
    """A number as JSON can hold it."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def number(data: object) -> float:
    """The number that plain data hold. Raises `ValueError` where there is none that a float can be."""
    if _fits(float, data):
        return float(typing.cast(Any, data))
    raise ValueError(data)


@functools.cache
def _fields(cls: type) -> Mapping[str, tuple[Any, bool]]:
    """The annotation of every field, and whether it has no default."""
    hints = typing.get_type_hints(cls)
    return {
        own.name: (hints[own.name], own.default is dataclasses.MISSING and own.default_factory is dataclasses.MISSING)
        for own in dataclasses.fields(cls)
    }


def _fits(wanted: Any, data: object) -> bool:
    if wanted is float:
        is_number = isinstance(data, float) or (type(data) is int and abs(data) < 2**1000)
        return is_number or (isinstance(data, str) and data in _NOT_FINITE)
    if wanted is int:
        return type(data) is int and -(2**63) <= data < 2**63
    return isinstance(wanted, type) and type(data) is wanted


def _described(wanted: Any) -> str:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_described, arguments)))
    if origin is Literal:
        return f"one of {listed(map(repr, arguments))}"
    if origin is Mapping or dataclasses.is_dataclass(wanted):
        return "an object"
    if origin in (tuple, Sequence):
        return "a list"
    return "null" if wanted is types.NoneType else _WORDS.get(wanted, getattr(wanted, "__name__", str(wanted)))
