"""Writing a report to a file: as a page, as Markdown, or as the JSON that the page carries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from groupwise._atomic import obstacle, replacing
from groupwise._paths import path_of
from groupwise.errors import RecordError, unknown
from groupwise.report.coding import dumps
from groupwise.report.document import Report
from groupwise.report.markdown import markdown
from groupwise.report.page import page
from groupwise.report.picture import FORMATS as PICTURES
from groupwise.report.picture import picture
from groupwise.report.sources import Source, describe

FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    "html": page,
    "md": markdown,
    "json": lambda report: f"{dumps(report)}\n",
}
_SUFFIXES: Final = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}


def build(run: Source | Report | Sequence[Source], out: str | os.PathLike[str], format: str | None = None) -> Path:
    """Write what there is to say of a run, or of several side by side, to a file, which is whole or as it was.

    Args:
        run: the folder of a run, a `groupwise.records.Run`, a report that was written before (.html or .json), a
            `Report`, or several of the first three.
        out: the file. Its suffix says the format, unless `format` does; .svg, .pdf and .png are the losses as a
            picture (`groupwise.report.picture` draws any panel, in any size). A symbolic link is followed; a file that
            is replaced keeps its permissions.
        format: "html", "md" or "json".

    Returns:
        The path of the file.

    Raises:
        RecordError: there is nothing to read, the format is unknown, there is no such directory, what stands at `out`
            is no regular file, or plotly, which the page needs, is not installed.
        OSError: the file cannot be written, as on a full disk; it is as it was.
    """
    path = path_of(out, RecordError, "the report")
    if format is None and path.suffix.lower() in PICTURES:
        return picture(run, path)
    form = format_of(path, format)
    if reason := obstacle(path):
        raise RecordError(f"{path}: cannot write it: {reason}")
    text = rendered(run if isinstance(run, Report) else describe(run), form)
    with replacing(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
    return path


def rendered(report: Report, format: str) -> str:
    """The report in a format. Raises `RecordError` if there is no such format, or if plotly is missing for the page."""
    _check_format(format)
    return FORMATS[format](report)


def _check_format(format: str) -> None:
    if not isinstance(format, str) or format not in FORMATS:
        raise RecordError(unknown("format", format, FORMATS))


def format_of(path: Path, format: str | None) -> str:
    """The format that is asked for, or that a file's suffix means. Raises `RecordError` if neither says one."""
    if format is not None:
        _check_format(format)
        return format
    path = path_of(path, RecordError, "the report")
    if path.suffix.lower() not in _SUFFIXES:
        raise RecordError(f"{path}: {unknown('suffix of a report', path.suffix, _SUFFIXES)}")
    return _SUFFIXES[path.suffix.lower()]
