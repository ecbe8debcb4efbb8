"""What a report says, as plain values: text, tables and the numbers of its plots, without how any of it looks.

    Report ─ RunReport ┬ facts      (what, value)
                       ├ verdict    Sentence …           what the numbers say, in words
                       └ panels     Panel ─ figures      Lines | Heat | Table | Verbatim

The page, the Markdown, the terminal view and the JSON are four ways of showing one such value, so they cannot disagree.
A value that exists can be shown: what does not fit together is a `RecordError` when it is made, since a report that was
written before may come from anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from groupwise import _html
from groupwise._spelling import shown
from groupwise.errors import RecordError

VERSION: Final = 1
"""The version of the JSON form: a reader refuses a newer one."""

Tone: TypeAlias = Literal["look", "note", "fine"]
"""Of a sentence: somebody should look at this; worth knowing; as it should be."""

_TONES: Final[Mapping[Tone, str]] = {"look": "needs a look", "note": "worth knowing", "fine": "as it should be"}

Ramp: TypeAlias = Literal["plain", "log", "signed"]
"""How the numbers of a heat map become colour: from low to high, by their logarithm, or on both sides of zero."""


@final
@dataclass(frozen=True)
class Sentence:
    """One statement of the verdict, in a few words and in full, with the key of the panel that shows it."""

    rule: str
    tone: Tone
    head: str
    text: str
    panel: str


@final
@dataclass(frozen=True)
class Line:
    """One course of values. `faint` lines are shown on request, where there are too many to tell apart."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    faint: bool = False
    dashed: bool = False

    def __post_init__(self) -> None:
        ascending = all(a <= b for a, b in itertools.pairwise(self.steps))
        if not self.steps or len(self.steps) != len(self.values) or not ascending:
            raise RecordError(f"the line {shown(self.name)} has no value at each of its steps, ascending")


@final
@dataclass(frozen=True)
class Guide:
    """A value that a plot is read against."""

    value: float
    text: str


@final
@dataclass(frozen=True)
class Table:
    """A table: the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        if not self.columns or any(len(row) != len(self.columns) for row in self.rows):
            raise RecordError(f"the table {shown(self.title)} has rows of another length than its heading")


@final
@dataclass(frozen=True)
class Lines:
    """A plot of lines over steps, and the same as a table of what each line comes to."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    table: Table
    logarithmic: bool = False
    guides: tuple[Guide, ...] = ()
    note: str = ""


@final
@dataclass(frozen=True)
class Heat:
    """A number for each row and column; nan where there is none. `across` says what the columns are: steps or tasks."""

    title: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float, ...], ...]
    ramp: Ramp = "plain"
    note: str = ""
    across: str = "step"

    def __post_init__(self) -> None:
        if len(self.cells) != len(self.rows) or any(len(row) != len(self.columns) for row in self.cells):
            raise RecordError(f"the heat map {shown(self.title)} has cells that belong to no row or column")


@final
@dataclass(frozen=True)
class Verbatim:
    """A text whose line breaks and columns stay."""

    title: str
    text: str


Figure: TypeAlias = Lines | Heat | Table | Verbatim


@final
@dataclass(frozen=True)
class Panel:
    """One question to a run. `missing` says why it cannot be answered, and how it could be."""

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    missing: str = ""


@final
@dataclass(frozen=True)
class RunReport:
    """What there is to say of one run."""

    name: str
    summary: str
    facts: tuple[tuple[str, str], ...]
    verdict: tuple[Sentence, ...]
    panels: tuple[Panel, ...]

    def _repr_html_(self) -> str:
        rows = [(_TONES[sentence.tone], sentence.head, sentence.text) for sentence in self.verdict]
        return _html.table((self.name, "finding", "in full"), rows, below=[self.summary])


@final
@dataclass(frozen=True)
class Report:
    """One run, or several side by side."""

    runs: tuple[RunReport, ...]

    def _repr_html_(self) -> str:
        return "".join(run._repr_html_() for run in self.runs)
