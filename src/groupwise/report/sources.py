"""Where a report comes from: runs that are read, or a report that was written before, as a page or as JSON."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from groupwise._paths import path_of
from groupwise._spelling import shown
from groupwise.errors import RecordError, within
from groupwise.records import Run, read
from groupwise.report.coding import MARK, loads
from groupwise.report.document import Report, RunReport
from groupwise.report.facts import facts
from groupwise.report.panels import panels
from groupwise.report.reading import Reading
from groupwise.report.scales import on_common_scales
from groupwise.report.verdict import summary, verdict

Source: TypeAlias = Run | str | os.PathLike[str]

LARGEST: Final = 256 * 2**20
"""Bytes of the largest report that is read."""
_SAVED: Final = (".html", ".htm", ".json")
_EMBEDDED: Final = re.compile(rf'<script type="application/json" id="{MARK}">(.*?)</script>', re.DOTALL)


def describe(run: Source | Sequence[Source]) -> Report:
    """What there is to say of a run, or of several side by side.

    Args:
        run: the folder of a run, a `Run` that was read, a report that was written before (.html or .json), or several.

    Raises:
        RecordError: there is nothing to read, or it is neither a run nor a report.
    """
    if not isinstance(run, Run | str | os.PathLike | Sequence):
        raise RecordError(f"a report is of a run, of its folder, or of several, not of {shown(run)}")
    sources = [run] if isinstance(run, Run | str | os.PathLike) else list(run)
    if not sources:
        raise RecordError("no run was given: a report is of one run or of several")
    saved = {place: _saved(path) for place, source in enumerate(sources) if (path := _page_or_json(source))}
    runs = {place: _run(source) for place, source in enumerate(sources) if place not in saved}
    names = dict(zip(runs, distinct([run.path for run in runs.values()]), strict=True))
    parts = (saved[i] if i in saved else (describe_run(runs[i], names[i]),) for i in range(len(sources)))
    return on_common_scales(Report(tuple(report for part in parts for report in part)))


def describe_run(run: Run, name: str, *, under_way: bool = False) -> RunReport:
    """What there is to say of one run; of one that is known to be under way, not that it has no end."""
    reading = Reading(run)
    sentences = tuple(it for it in verdict(reading) if not (under_way and it.rule == "unfinished"))
    return RunReport(name, summary(reading, sentences), facts(reading), sentences, panels(reading))


def distinct(paths: Iterable[Path]) -> list[str]:
    """The last parts of the paths, as many as it takes to tell them apart."""
    resolved = [path.resolve() for path in paths]
    longest = max((len(path.parts) for path in resolved), default=1)
    for count in range(1, longest + 1):
        names = ["/".join(path.parts[-count:]) for path in resolved]
        if len(set(names)) == len(set(resolved)):
            return names
    return [str(path) for path in resolved]


def _run(source: Source) -> Run:
    return source if isinstance(source, Run) else read(source)


def _page_or_json(source: Source) -> Path | None:
    """The path of a report that was written before; None of a run."""
    if isinstance(source, Run):
        return None
    path = path_of(source, RecordError, "a run")
    return path if path.suffix.lower() in _SAVED and not path.is_dir() else None


def _saved(path: Path) -> tuple[RunReport, ...]:
    with within(str(path)):
        text = _text(path)
        if path.suffix.lower() != ".json":
            found = _EMBEDDED.search(text)
            if found is None:
                raise RecordError("it is a page, but no report of groupwise")
            text = found[1]
        return loads(text).runs


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise RecordError("it is no regular file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise RecordError(f"it is larger than {LARGEST:,} bytes: that is no report")
        return data.decode()
    except UnicodeDecodeError:
        raise RecordError("it is not UTF-8 text") from None
    except OSError as error:
        raise RecordError(f"cannot read the file: {error.strerror or error}") from None
