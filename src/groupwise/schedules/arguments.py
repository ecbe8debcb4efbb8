"""What the arguments of a schedule or a balancing method may be, said once, in their annotations.

A field's annotation is its declaration: `peak: Number`, `over: Span | None`, `shape: Literal["linear", "cosine"]`.
`read` walks the fields of a new value, turns each argument into what is stored (a float, a `Length`, a tuple) and
refuses the rest with the argument's name. Files use the same kinds: `from_table` puts text and lists from TOML, YAML or
JSON through a kind's `plain` first, and `given` is what is written back. A kind's `form` is what a file may hold, as
JSON Schema says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from dataclasses import field as dataclass_field
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, final, get_args, get_origin, get_type_hints

from groupwise._spelling import number_from_text, shown
from groupwise.errors import ScheduleError, listed, unknown, within
from groupwise.schedules.lengths import LENGTH_FORM, Length, length
from groupwise.schedules.numbers import number, number_form

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def _as_is(value: object) -> object:
    return value


@final
@dataclass(frozen=True)
class Kind:
    """One kind of argument: `read` checks and converts what Python gives; `plain` prepares what a file gives, whose
    `form` is a JSON Schema; None for what no file can hold.
    """

    read: Callable[[Any], object]
    plain: Callable[[object], object] = _as_is
    form: Mapping[str, object] | None = dataclass_field(default=None, compare=False)


def numbers(least: float = -math.inf, most: float = math.inf, above: float = -math.inf, whole: bool = False) -> Kind:
    """A finite number in [least, most], greater than `above`; stored as an int where `whole`."""

    def read(value: object) -> float:
        result = number(value)
        if whole and not result.is_integer():
            raise ScheduleError(f"{shown(value)} is not a whole number")
        if result <= above:
            raise ScheduleError(f"{shown(value)} is not above {above:g}")
        if result < least:
            raise ScheduleError(f"{shown(value)} is less than {least:g}")
        if result > most:
            raise ScheduleError(f"{shown(value)} is more than {most:g}")
        return int(result) if whole else result

    return Kind(read, number_from_text, number_form(least, most, above, whole))


def _span(value: Length | str) -> Length:
    return length(value)


def _period(value: Length | str) -> Length:
    result = length(value)
    if not result.amount:
        raise ScheduleError(f"{str(result)!r} is no time at all")
    return result


def _listed(value: object, of: str) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise ScheduleError(f"{shown(value)} is not a list of {of}")
    return value


def _spans(value: object) -> tuple[Length, ...]:
    return tuple(length(item) for item in _listed(value, "lengths"))  # type: ignore[arg-type]


def _choice(options: tuple[object, ...]) -> Kind:
    def read(value: object) -> object:
        if isinstance(value, str) and value in options:
            return value
        raise ScheduleError(f"{shown(value)} is none of {listed(map(repr, options))}")

    return Kind(read, form={"enum": list(options)})


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ScheduleError(f"{shown(value)} is neither true nor false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ScheduleError(f"{shown(value)} is not text")
    return value


def for_python_alone(value: object) -> object:
    """What a file gives in the place of something that it cannot hold. Raises `ScheduleError`."""
    if value is None or isinstance(value, str | int | float | list | tuple | Mapping):
        raise ScheduleError(f"it is for Python alone, and a file gives {shown(value)}")
    return value


_BARE: Mapping[object, Kind] = {
    bool: Kind(_flag, form={"type": "boolean"}),
    float: numbers(),
    int: numbers(whole=True),
    str: Kind(_text, form={"type": "string"}),
}
"""Of annotations that declare no kind."""

Number: TypeAlias = Annotated[float, numbers()]
Positive: TypeAlias = Annotated[float, numbers(above=0)]
NonNegative: TypeAlias = Annotated[float, numbers(least=0)]
Fraction: TypeAlias = Annotated[float, numbers(least=0, most=1)]
Count: TypeAlias = Annotated[int, numbers(least=0, whole=True)]
Times: TypeAlias = Annotated[int, numbers(least=1, whole=True)]
Span: TypeAlias = Annotated[Length | str, Kind(_span, form=LENGTH_FORM)]
Period: TypeAlias = Annotated[Length | str, Kind(_period, form=LENGTH_FORM)]
Spans: TypeAlias = Annotated[
    Sequence[Length | str], Kind(_spans, form={"type": "array", "items": LENGTH_FORM, "minItems": 1})
]


def store(schedule: DataclassInstance, values: Mapping[str, object]) -> None:
    """Set fields of a frozen `schedule` that writes its own constructor."""
    for name, value in values.items():
        object.__setattr__(schedule, name, value)


@cache
def signature(cls: type[DataclassInstance]) -> Mapping[str, Field[Any]]:
    """The fields of `cls` by the name of their argument, in the order of its constructor, `warmup` last.

    A field that would hide a method (`at`) carries an underscore that its argument does not: `at_`.
    """
    ordered = sorted(fields(cls), key=lambda f: (f.kw_only, f.name == "warmup"))
    return {f.name.rstrip("_"): f for f in ordered}


@cache
def kinds(cls: type[DataclassInstance]) -> Mapping[str, Kind]:
    """The kind of each argument of `cls`, from its annotation."""
    hints = get_type_hints(cls, include_extras=True)
    return {argument: _kind(hints[field.name]) for argument, field in signature(cls).items()}


def _kind(hint: object) -> Kind:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in options:
        inner = _kind(next(option for option in options if option is not NoneType))
        return Kind(lambda value: None if value is None else inner.read(value), inner.plain, inner.form)
    if get_origin(hint) is Literal:
        return _choice(get_args(hint))
    declared = (extra for extra in get_args(hint) if isinstance(extra, Kind))
    return next(declared, _BARE.get(hint, Kind(_as_is, for_python_alone)))


def read(schedule: DataclassInstance, kind: str) -> None:
    """Read every argument of the new `schedule` in place. Raises `ScheduleError` naming its `kind` and the argument."""
    of = kinds(type(schedule))
    for argument, field in signature(type(schedule)).items():
        with within(f"{kind}: {argument}"):
            object.__setattr__(schedule, field.name, of[argument].read(getattr(schedule, field.name)))


def given(schedule: DataclassInstance) -> dict[str, object]:
    """The arguments of `schedule` that differ from their defaults, in the order of its constructor."""
    values = {name: (getattr(schedule, f.name), f.default) for name, f in signature(type(schedule)).items()}
    return {name: value for name, (value, default) in values.items() if default is MISSING or value != default}


def from_table(
    cls: type[DataclassInstance],
    table: Mapping[Any, object],
    keys: Mapping[str, str],
    what: str = "key",
    others: Sequence[str] = (),
) -> dict[str, object]:
    """The arguments of `cls` that a table of plain data states.

    Args:
        cls: the class.
        table: the data.
        keys: the argument that each key stands for.
        what: what a key is called in an error.
        others: keys that stand beside these and were taken out of the table; an error names them too.

    Raises:
        ScheduleError: a key or a value that is none, or an argument without a default that is missing.
    """
    found: dict[str, object] = {}
    for key, value in table.items():
        if key not in keys:
            raise ScheduleError(unknown(what, key[:40] if isinstance(key, str) else shown(key), [*keys, *others]))
        with within(keys[key]):
            kind = kinds(cls)[keys[key]]
            found[keys[key]] = kind.read(kind.plain(value))
    of = signature(cls)
    missing = [key for key, name in keys.items() if name not in found and _is_required(of[name])]
    if missing:
        raise ScheduleError(f"{listed(missing)} is not given")
    return found


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
