"""The plan's table, read again: for each group what its columns say.

The records carry the table as text. Its second line rules the columns off, so cells are found by their place, whatever
they hold. A text that has another form has no rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_RULE: Final = "─"
_NUMBER: Final = r"[0-9.]+(?:e[+-]?[0-9]+)?"
_CONSTANT: Final = re.compile(rf"({_NUMBER})((?: × {_NUMBER})*)")
_FALLING: Final = re.compile(
    rf"(?:cosine|linear|polynomial|exponential|inverse_sqrt)\(({_NUMBER})\b[^)]*\)((?: × {_NUMBER})*)"
)

Rows = Mapping[str, Mapping[str, str]]


def rows_of(table: str | None) -> Rows:
    """By group, by column, the cell."""
    lines = (table or "").split("\n")
    if len(lines) < 3 or not lines[1].startswith(_RULE):
        return {}
    places = [(match.start(), match.end()) for match in re.finditer(f"{_RULE}+", lines[1])]
    columns = _cells(lines[0], places)
    rows: dict[str, Mapping[str, str]] = {}
    for line in lines[2:]:
        if line.startswith(_RULE):
            break
        cells = _cells(line, places)
        rows[cells[0]] = dict(zip(columns, cells, strict=True))
    return rows


def constant(cell: str) -> float | None:
    """The number that a cell with a number, and factors, comes to."""
    match = _CONSTANT.fullmatch(cell.removesuffix(" (default)"))
    return None if match is None else _product(match[1], match[2])


def peak(cell: str) -> float | None:
    """The highest value of a schedule that falls from its first argument on (after a warmup, if it has one)."""
    match = _FALLING.fullmatch(cell)
    return None if match is None else _product(match[1], match[2])


def _product(number: str, factors: str) -> float:
    value = float(number)
    for factor in re.findall(_NUMBER, factors):
        value *= float(factor)
    return value


def _cells(line: str, places: list[tuple[int, int]]) -> list[str]:
    return [line[start:end].strip() for start, end in places]
