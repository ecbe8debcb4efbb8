"""The JSON form of a report: written from the values, read back into equal values, or refused.

Every value is an object with its `kind`; a number that is not finite is "nan", "inf" or "-inf", as in the records. The
page carries the same text, so it can be read again too. Everything outside ASCII, and every `<`, `>` and `&`, is
written as an escape: inside a script element nothing of a name can end it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, Final, Literal, Union

from groupwise.errors import RecordError
from groupwise.report import document
from groupwise.report.document import VERSION, Report

MARK: Final = "groupwise-report"
_CLASSES: Final[dict[str, type]] = {
    name: value for name, value in vars(document).items() if dataclasses.is_dataclass(value) and isinstance(value, type)
}
_ESCAPES: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def dumps(report: Report) -> str:
    """The report as one line of JSON, safe inside a script element."""
    keys = {"format": MARK, "version": VERSION, **_encoded(report)}
    text = json.dumps(keys, separators=(",", ":"), allow_nan=False)
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text


def loads(text: str) -> Report:
    """The report that `dumps` wrote. Raises `RecordError` for anything else."""
    try:
        keys = json.loads(text)
    except (ValueError, RecursionError):
        raise RecordError("it is not JSON") from None
    if not isinstance(keys, dict) or keys.get("format") != MARK:
        raise RecordError("it is JSON, but no report of groupwise")
    version = keys.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise RecordError(f"it has version {version!r} of the report format, and this groupwise reads up to {VERSION}")
    report = _decoded(Report, {"kind": "Report", **keys}, "report")
    if not report.runs:
        raise RecordError("report.runs is empty")
    return typing.cast(Report, report)


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        told = {field.name: _encoded(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **told}
    if isinstance(value, tuple):
        return [_encoded(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _decoded(wanted: Any, value: Any, place: str) -> Any:
    """The value of the type `wanted` that JSON holds at `place`."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted) or origin in (Union, types.UnionType):
        return _object(arguments or (wanted,), value, place)
    if origin is tuple and isinstance(value, list):
        return _tuple(arguments, value, place)
    if origin is Literal and value in arguments:
        return value
    if wanted is float and (type(value) in (int, float) or value in ("nan", "inf", "-inf")):
        return float(value)
    if isinstance(wanted, type) and type(value) is wanted:
        return value
    raise RecordError(f"{place} is {str(value)[:40]!r}")


def _tuple(arguments: tuple[Any, ...], value: list[Any], place: str) -> tuple[Any, ...]:
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(value):
        raise RecordError(f"{place} has {len(value)} elements, not {len(kinds)}")
    return tuple(_decoded(kind, value[i], f"{place}[{i}]") for i, kind in enumerate(kinds))


def _object(classes: tuple[Any, ...], value: Any, place: str) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else None
    wanted = _CLASSES.get(kind) if isinstance(kind, str) else None
    if wanted is None or wanted not in classes:
        raise RecordError(f"{place} is {str(value)[:40]!r}")
    hints = typing.get_type_hints(wanted)
    missing = [name for name in hints if name not in value]
    if missing:
        raise RecordError(f"{place} lacks {missing[0]!r}")
    return wanted(**{name: _decoded(hint, value[name], f"{place}.{name}") for name, hint in hints.items()})
