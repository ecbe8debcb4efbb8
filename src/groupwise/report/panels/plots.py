"""What panels draw with: lines over time that stay readable however many they are, and the table that goes with them.

Up to 12 lines are drawn as they are. Of more, the 4 highest and the 4 lowest (by median) are drawn and the others wait
behind a button; a heat map shows all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from groupwise.records import Series
from groupwise.report.document import Figure, Guide, Heat, Line, Lines, Ramp, Table
from groupwise.report.numbers import finite, formatted, median, quoted
from groupwise.report.thinning import binned, thinned

TOGETHER: Final = 12
"""As many lines as a person tells apart."""
EXTREMES: Final = 4
"""Of more lines, so many of the highest and of the lowest are shown at once."""
MOST: Final = 200
"""As many lines, and rows of a heat map, as a report holds."""
POINTS: Final = 40_000
"""As many points as a plot holds, over all its lines."""
COLUMNS: Final = 60
"""As many columns as a heat map has."""


@final
@dataclass(frozen=True)
class Plot:
    """How lines are drawn: the heading, the unit, the scale, what they are read against, and whose are dashed."""

    title: str
    unit: str
    logarithmic: bool = False
    guides: tuple[Guide, ...] = ()
    ramp: Ramp = "plain"
    dashed: Collection[str] = ()
    heat: bool = False
    note: str = ""


def over_time(series: Mapping[str, Series], plot: Plot) -> tuple[Figure, ...]:
    """The lines, and a heat map beside them where they are many or where `plot.heat` asks for it."""
    shown = _prominent(series)
    held = [*shown, *(name for name in series if name not in shown)][:MOST]
    most = min(max(POINTS // len(held), 120), 900)
    lines = tuple(_line(name, series[name], most, name not in shown, plot) for name in series if name in set(held))
    notes = [
        plot.note,
        _unseen(series) if plot.logarithmic else "",
        _how_many(len(series), len(shown), len(held)),
        _how_dense(series, lines),
    ]
    text = " ".join(filter(None, notes))
    drawn = Lines(plot.title, plot.unit, lines, _summary(plot, series), plot.logarithmic, plot.guides, text)
    varied = len({value for each in series.values() for value in each.values}) > 1  # one colour shows nothing
    wanted = varied and (len(series) > TOGETHER or (plot.heat and len(series) > 1))
    return (drawn, heat_map(series, plot)) if wanted else (drawn,)


def _prominent(series: Mapping[str, Series]) -> list[str]:
    if len(series) <= TOGETHER:
        return list(series)
    ordered = sorted(series, key=lambda name: -_height(series[name]))
    return [*ordered[:EXTREMES], *ordered[-EXTREMES:]]


def _height(series: Series) -> float:
    middle = median(series.values)
    return -math.inf if math.isnan(middle) else middle


def _line(name: str, series: Series, most: int, faint: bool, plot: Plot) -> Line:
    at = thinned(series.values, most)
    steps, values = tuple(series.steps[i] for i in at), tuple(series.values[i] for i in at)
    return Line(name, steps, values, faint, name in plot.dashed)


def _unseen(series: Mapping[str, Series]) -> str:
    """What a logarithmic scale cannot show."""
    unseen = [name for name in series if not any(value > 0 for value in series[name].values)]
    return (
        f"{quoted(unseen)} {'is' if len(unseen) == 1 else 'are'} 0 throughout: no line on this scale." if unseen else ""
    )


def _how_many(count: int, shown: int, held: int) -> str:
    if count == shown:
        return ""
    left = f" (this report holds {held} of them)" if held < count else ""
    return f"Shown are the {EXTREMES} highest and the {EXTREMES} lowest of {count} lines{left}."


def _how_dense(series: Mapping[str, Series], lines: Sequence[Line]) -> str:
    thinned = max(lines, key=lambda line: len(series[line.name].steps) - len(line.steps))
    all_points, points = len(series[thinned.name].steps), len(thinned.steps)
    if points == all_points:
        return ""
    return f"A line has up to {points:,} of {all_points:,} points: the lowest and the highest of each stretch."


def _summary(plot: Plot, series: Mapping[str, Series]) -> Table:
    columns = ("name", "first", "median", "last", "lowest", "highest", "records")
    rows = tuple(_row(name, series[name]) for name in list(series)[:MOST])
    return Table(plot.title, columns, rows, beyond(len(series)))


def beyond(count: int) -> str:
    """What a table of so many rows leaves out, if anything."""
    return f"The first {MOST} of {count:,} rows." if count > MOST else ""


def _row(name: str, series: Series) -> tuple[str, ...]:
    values = series.values
    numbers = finite(values) or [float("nan")]
    ends = (values[0], median(values), values[-1], min(numbers), max(numbers))
    return (name, *map(formatted, ends), f"{len(values):,}")


def heat_map(series: Mapping[str, Series], plot: Plot, title: str = "") -> Heat:
    """The same as cells: a row for each series, a column for each stretch of steps."""
    first = min(found.steps[0] for found in series.values())
    last = max(found.steps[-1] for found in series.values())
    longest = max((found.steps for found in series.values()), key=len)
    count = min(COLUMNS, last - first + 1, len(longest))
    edges = [first + (last + 1 - first) * i // count for i in range(count + 1)]
    if len(longest) <= COLUMNS and all(set(found.steps) <= set(longest) for found in series.values()):
        edges = [*longest, last + 1]  # the very steps that were recorded
    names = list(series)[:MOST]
    cells = tuple(tuple(binned(*series[name], edges)) for name in names)
    note = f"Each cell is the median of up to {-(-(last + 1 - first) // count):,} steps." if count == COLUMNS else ""
    if len(names) < len(series):
        note = f"{note} The first {len(names)} of {len(series)} rows are shown.".strip()
    columns = tuple(f"{edge:,}" for edge in edges[:-1])
    ramp: Ramp = "log" if plot.logarithmic else plot.ramp
    return Heat(title or f"{plot.title}: all at once", plot.unit, tuple(names), columns, cells, ramp, note)
