"""The report as Markdown: the words and the tables, for a pull request, a notebook or the terminal.

Texts of a run are escaped, and hold no character that a terminal or a reader would obey.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from groupwise._spelling import printable_lines
from groupwise.report.differences import differences
from groupwise.report.document import Figure, Panel, Report, RunReport, Table, Verbatim
from groupwise.report.tables import table_of

_MARKS: Final = {"look": "**Look:**", "note": "Note:", "fine": "Fine:"}
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>&|#~])")


def markdown(report: Report) -> str:
    """The whole text."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    several = len(report.runs) > 1
    yield f"# {_text(' · '.join(run.name for run in report.runs))}"
    if sentences := differences(report):
        yield from ("", "## What differs", "")
        yield from (f"- {_text(sentence.head)}: {_text(sentence.text)}" for sentence in sentences)
    for run in report.runs:
        yield from _verdict(run, several)
    for key in dict.fromkeys(panel.key for run in report.runs for panel in run.panels):
        found = [(run, panel) for run in report.runs for panel in run.panels if panel.key == key]
        yield from ("", f"## {_text(found[0][1].title)}", "", _text(found[0][1].lead))
        for run, panel in found:
            if several:
                yield from ("", f"### {_text(run.name)}")
            yield from _panel(panel)


def _verdict(run: RunReport, several: bool) -> Iterator[str]:
    yield from ("", f"## Verdict: {_text(run.name)}" if several else "## Verdict", "", _text(run.summary), "")
    titles = {panel.key: panel.title for panel in run.panels}
    for sentence in run.verdict:
        title = titles.get(sentence.panel, sentence.panel)
        link = f"[{_text(title)}](#{_anchor(title)})"
        yield f"- {_MARKS[sentence.tone]} {_text(sentence.head)}. {_text(sentence.text)} {link}"
    yield from _table(Table("", ("run", run.name), run.facts))


def _panel(panel: Panel) -> Iterator[str]:
    if panel.missing:
        yield from ("", _text(panel.missing))
    for figure in panel.figures:
        yield from _figure(figure)


def _figure(figure: Figure) -> Iterator[str]:
    yield from ("", f"**{_text(figure.title)}**")
    if isinstance(figure, Verbatim):
        text = printable_lines(figure.text)
        fence = "`" * max(1 + max(map(len, re.findall("`+", text)), default=0), 3)
        yield from ("", f"{fence}text", text, fence)
    else:
        yield from _table(figure if isinstance(figure, Table) else table_of(figure))


def _table(table: Table) -> Iterator[str]:
    yield from ("", _row(table.columns), "|---" * len(table.columns) + "|")
    yield from map(_row, table.rows)
    if table.note:
        yield from ("", _text(table.note))


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_text, cells))} |"


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", printable_lines(text).replace("\n", " "))


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
