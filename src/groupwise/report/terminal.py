"""The report in a terminal: the verdict, then one line for each task and for each group, as wide as there is room.

A line of blocks is the course of a number from the first record to the last; the number before it is its median, or
the last one where that says more (what a narrow terminal cuts is the line, never a number). What cannot be a character
of a line never reaches the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from groupwise._spelling import printable
from groupwise.report.differences import differences
from groupwise.report.document import Line, Lines, Report, RunReport, Sentence
from groupwise.report.numbers import finite, formatted, median
from groupwise.report.thinning import binned

BLOCKS: Final = "▁▂▃▄▅▆▇█"
ROWS: Final = 24
"""As many groups as the view lists."""
TASKS: Final = "Loss of each task, over its first"
LOSS: Final = "Logged: loss"
_TASKS_AT_A_GLANCE: Final = 4
_HIGH: Final = 20
"""Lines of a terminal that has room for tasks and groups."""
_TONES: Final = {"look": ("▲", "bold red"), "note": ("●", "blue"), "fine": ("✓", "green")}


@final
@dataclass(frozen=True)
class Column:
    """A number of every group: its heading, its panel and plot, and whether its last value is shown."""

    heading: str
    panel: str
    figure: str
    last: bool = False


COLUMNS: Final = (
    Column("update/weight", "updates", "Update over weight"),
    Column("gradient norm", "gradients", "Gradient norm of each group"),
    Column("contribution", "contributions", "Contribution of each group, summed", last=True),
    Column("lr", "schedules", "lr"),
)
"""In the order in which they are given up where it is narrow, the last first."""
_LOSS: Final = Column("loss", "losses", LOSS, last=True)


def view(report: Report, width: int, rows: int = ROWS) -> RenderableType:
    """The report as it stands in a terminal of `width` columns, with at most `rows` groups of each run."""
    parts: list[RenderableType] = []
    if found := differences(report):
        parts += [Text(""), Text("What differs", style="bold"), *map(_sentence, found)]
    for run in report.runs:
        parts += [Text(""), Text(printable(run.name), style="bold"), Text(printable(run.summary))]
        parts += [Text(printable(", ".join(f"{what} {value}" for what, value in run.facts)), style="dim"), Text("")]
        parts += list(map(_sentence, run.verdict))
        parts += [*_tasks(run, width, rows), *_groups(run, width, rows)]
    return Group(*parts[1:])


def glance(run: RunReport, width: int, height: int, progress: str = "") -> RenderableType:
    """A run in no more than `height` lines: how far it is, what to look at and what is worth knowing, its loss or its
    tasks, then as many groups as there is room.
    """
    heads = [sentence for sentence in run.verdict if sentence.tone != "fine"][: max(height // 5, 1)]
    lines = [Text(f"{printable(run.name)}: {printable(run.summary)}", style="bold", no_wrap=True, overflow="ellipsis")]
    lines += [Text(printable(progress), style="dim", no_wrap=True, overflow="ellipsis")] if progress else []
    lines += [Text.assemble(_TONES[s.tone], f" {printable(s.head)}", no_wrap=True, overflow="ellipsis") for s in heads]
    tasks = _tasks(run, width, _TASKS_AT_A_GLANCE) if height >= _HIGH else []
    if not tasks and (loss := _figure(run, "losses", LOSS)) is not None:
        lines.append(Text.assemble("loss ", _cell(_LOSS, loss, {"loss": loss.lines[0]}, "loss", min(width - 17, 30))))
    above = len(lines) + (3 + _TASKS_AT_A_GLANCE if tasks else 0)
    return Group(*lines, *tasks, *_groups(run, width, max(height - above - 5, 1)))


def spark(line: Line, cells: int, logarithmic: bool) -> str:
    """A line as blocks from its lowest to its highest value; a gap where it has none."""
    first, last = line.steps[0], line.steps[-1]
    count = min(cells, len(line.steps), last - first + 1)
    edges = [first + (last + 1 - first) * i // count for i in range(count + 1)]
    values = [value if not logarithmic or value > 0 else math.nan for value in binned(line.steps, line.values, edges)]
    heights = [math.log(value) if logarithmic else value for value in values]
    found = finite(heights)
    if not found:
        return " " * count
    low, high = min(found), max(found)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in heights)


def _sentence(sentence: Sentence) -> RenderableType:
    mark, style = _TONES[sentence.tone]
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        Text(mark, style=style), Text.assemble((printable(sentence.head), "bold"), f". {printable(sentence.text)}")
    )
    return grid


def _tasks(run: RunReport, width: int, rows: int) -> list[RenderableType]:
    figure = _figure(run, "losses", TASKS)
    if figure is None:
        return []
    return [_below(_table("task", [(Column("loss over its first", "losses", TASKS, last=True), figure)], width, rows))]


def _groups(run: RunReport, width: int, rows: int) -> Iterator[RenderableType]:
    found = [(column, figure) for column in COLUMNS if (figure := _figure(run, column.panel, column.figure))]
    if found:
        yield _below(_table("group", found[: max((width - 20) // 25, 1)], width, rows))
        names = _names([figure for _, figure in found])
        if len(names) > rows:
            yield Text(f"and {len(names) - rows} more", style="dim")


def _below(table: Table) -> RenderableType:
    return Padding(table, (1, 0, 0, 0))


def _figure(run: RunReport, panel: str, title: str) -> Lines | None:
    figures = (figure for held in run.panels if held.key == panel for figure in held.figures)
    return next((figure for figure in figures if isinstance(figure, Lines) and figure.title == title), None)


def _names(figures: Sequence[Lines]) -> list[str]:
    lines = [line for figure in figures for line in figure.lines]
    return list(dict.fromkeys(line.name for line in sorted(lines, key=lambda line: line.faint)))


def _table(what: str, columns: Sequence[tuple[Column, Lines]], width: int, rows: int) -> Table:
    names = _names([figure for _, figure in columns])[:rows]
    label = min(max(map(len, [what, *names])), max(width // 3, 12))
    cells = max((width - label - 2) // len(columns) - 12, 4)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(what, max_width=label, no_wrap=True, overflow="ellipsis")
    lines = []
    for column, figure in columns:
        table.add_column(column.heading, no_wrap=True, overflow="ellipsis")
        lines.append({line.name: line for line in figure.lines})
    for name in names:
        table.add_row(
            Text(printable(name)),
            *(_cell(c, f, found, name, min(cells, 30)) for (c, f), found in zip(columns, lines, strict=True)),
        )
    return table


def _cell(column: Column, figure: Lines, lines: Mapping[str, Line], name: str, cells: int) -> Text:
    line = lines.get(name)
    if line is None:
        return Text("-", style="dim")
    number = line.values[-1] if column.last else median(line.values)
    return Text.assemble(f"{formatted(number):<9} ", (spark(line, cells, figure.logarithmic), "cyan"))
