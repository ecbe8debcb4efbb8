"""Whether tasks pull apart: cosines between their gradients, and how often they are negative."""

from __future__ import annotations

from groupwise.report.document import Figure, Guide, Panel, Table
from groupwise.report.numbers import finite, formatted, median, percent, share
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import Pair, Reading


def panel(reading: Reading) -> Panel:
    """The cosine of every pair over time, and the table of conflicts."""
    lead = "Below 0, a step along one task's gradient raises the other's loss, to first order: the two conflict."
    if not reading.cosines:
        how = "It takes two tasks and a balancing method that sees their gradients: `observer.log(balance=result)`."
        return Panel(
            "conflicts", "Conflicts", lead, missing=reading.no_record("hold no cosines between tasks", f". {how}")
        )
    named = {spelled(pair): series for pair, series in reading.cosines.items()}
    plot = Plot("Cosine between tasks", "cosine", guides=(Guide(0.0, "conflict below"),), ramp="signed")
    figures: list[Figure] = [*over_time(named, plot), _table(reading)]
    return Panel("conflicts", "Conflicts", lead, tuple(figures))


def spelled(pair: Pair) -> str:
    """`depth × seg`."""
    return f"{pair[0]} × {pair[1]}"


def _table(reading: Reading) -> Table:
    rows = []
    for pair, series in reading.cosines.items():
        values = finite(series.values)
        numbers = (formatted(median(values)), formatted(min(values)) if values else "-", f"{len(series.values):,}")
        rows.append((spelled(pair), percent(share([value < 0 for value in values])), *numbers))
    return Table("Pairs of tasks", ("pair", "in conflict", "median cosine", "lowest", "records"), tuple(rows))
