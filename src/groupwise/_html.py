"""Tables as HTML, for notebooks: plain cells, everything escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: AbstractSet[str] = frozenset(),
    below: Iterable[str] = (),
) -> str:
    """A table under the heads `columns`, those in `right` aligned to the right, and lines of text below it."""
    sides = ["right" if column in right else "left" for column in columns]
    head = _row("th", columns, sides)
    body = "".join(_row("td", row, sides) for row in rows)
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in below)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{lines}"


def _row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    marked = (
        f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(marked)}</tr>"
