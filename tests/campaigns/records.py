"""The records of a run, damaged: read and reported in every form, or refused in our own words that name the file.

Records are plain text without a digest, so a digit that has become another is another number; what is asked for here is
that reading ends, raises nothing foreign, and takes no line for what the schema does not allow. How often damaged bytes
were read as something else than was written is told with the rest.
"""

import contextlib
import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from groupwise.errors import RecordError
from groupwise.records import Run, read
from groupwise.records.run import SECTIONS, Section
from tests.campaigns.campaign import Attempt
from tests.campaigns.outcome import Outcome, foreign, survived
from tests.report.damage import damaged, damaged_report, lines, of_bytes, shown_again, text_of, verdict


def _said(said: str) -> Outcome:
    return foreign(RuntimeError(said)) if said.split(maxsplit=1)[0].isupper() else survived(said)


Numbers = dict[tuple[str, ...], frozenset[tuple[int, str]]]


def _numbers(folder: Path) -> Numbers:
    """All that a run holds: by what it is of, each number with its step."""
    run = read(folder)
    found: Numbers = {}
    for section in SECTIONS:
        for name in run.names(section):
            for keys in (name,) if section == "cosines" else ((name, *k) for k in _inner(run, section, name)):
                steps, values = run.series(section, *keys)
                found[(section, *keys)] = frozenset(zip(steps, map(repr, values), strict=True))
    str((run.header, run.events, run.groups, run.tasks, run.conflicting, len(run), list(run.steps), list(run.times)))
    return found


def _inner(run: Run, section: Section, name: str) -> list[tuple[str, ...]]:
    return [()] if section == "scalars" else [(key,) for key in run.names(section, name)]


def _read(folder: Path, written: Numbers | None) -> Outcome:
    """What comes of reading a folder; set against what was written there, if that is known."""
    try:
        found = _numbers(folder)
    except RecordError as error:
        named = str(folder) in str(error) and len(str(error)) <= 2000
        return survived("refused") if named else foreign(error)
    if written is None:
        return survived("read")
    fewer = all(numbers <= written.get(key, frozenset()) for key, numbers in found.items())
    return survived("as written" if found == written else "less of it" if fewer else "with another digit or name")


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Attempt]:
    """Runs, read: damaged in what their lines say, or byte by byte after they were written."""

    def attempt(draw: random.Random) -> Outcome:
        run = folder / "run"
        if draw.random() < 0.5:
            damaged(run, draw, draw.randrange(1000))
            return _read(run, None)
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        told = [lines(draw) for _ in range(draw.randint(1, 3))]
        parts = [run / f"part-{i:06d}.jsonl" for i in range(1, len(told) + 1)]
        for number, (path, part) in enumerate(zip(parts, told, strict=True), start=1):
            path.write_bytes(text_of([{**part[0], "part": number}, *part[1:]]))
        written, path = _numbers(run), draw.choice(parts)
        if len(parts) > 1 and draw.random() < 0.2:
            path.unlink()
            return _read(run, None)
        path.write_bytes(of_bytes(draw, [json.loads(line) for line in path.read_bytes().splitlines()]))
        return _read(run, written)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield attempt


@contextlib.contextmanager
def reporting(folder: Path) -> Iterator[Attempt]:
    """Runs, and now and then a report that was written before, shown as page, Markdown, JSON and in the terminal."""

    def attempt(draw: random.Random) -> Outcome:
        if draw.random() < 0.25:
            damaged_report(folder / "saved", draw)
            return _said(shown_again(folder / "saved" / "saved.json"))
        damaged(folder / "run", draw, draw.randrange(1000))
        return _said(verdict(folder / "run"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield attempt
