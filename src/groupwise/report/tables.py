"""The table of a figure: what is read where there is no plot."""

from __future__ import annotations

from groupwise.report.document import Heat, Lines, Table
from groupwise.report.numbers import formatted


def table_of(figure: Lines | Heat) -> Table:
    """The summary of the lines, or the cells of the heat map in at most 8 of its columns."""
    if isinstance(figure, Lines):
        return figure.table
    count = len(figure.columns)
    shown = sorted({i * (count - 1) // max(min(count, 8) - 1, 1) for i in range(min(count, 8))})
    columns = ("name", *(figure.columns[i] for i in shown))
    rows = tuple(
        (name, *(formatted(cells[i]) if cells[i] == cells[i] else "-" for i in shown))
        for name, cells in zip(figure.rows, figure.cells, strict=True)
    )
    note = "" if len(shown) == count else f"{len(shown)} of {count} columns; the JSON form has all of them."
    return Table(figure.title, columns, rows, note)
