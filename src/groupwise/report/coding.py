"""The JSON form of a report: written from the values, read back into equal values, or refused.

Every value is an object with its `kind`; a number that is not finite is "nan", "inf" or "-inf", as in the records. The
page carries the same text, so it can be read again too. Everything outside ASCII, and every `<`, `>` and `&`, is
written as an escape: inside a script element nothing of a name can end it.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Final

from groupwise._coding import Codec
from groupwise._spelling import shown
from groupwise.errors import RecordError
from groupwise.report import document
from groupwise.report.document import VERSION, Report

MARK: Final = "groupwise-report"
_CODEC: Final = Codec(
    RecordError,
    {name: kind for name, kind in vars(document).items() if dataclasses.is_dataclass(kind) and isinstance(kind, type)},
)
_ESCAPES: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def dumps(report: Report) -> str:
    """The report as one line of JSON, safe inside a script element."""
    keys = {"format": MARK, "version": VERSION, **_CODEC.encode(report)}
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
        raise RecordError(
            f"it has version {shown(version)} of the report format, and this groupwise reads up to {VERSION}"
        )
    report = typing.cast(Report, _CODEC.decode(Report, {"kind": "Report", **keys}, "report"))
    if not report.runs:
        raise RecordError("report.runs is empty")
    return report
