"""The picture of a run in a terminal: one line of blocks for each course of values, from the first step to the last.

Height and colour both tell the value, so nothing is lost where there is no colour. The numbers at the end of a line are
its start, its peak and its end. A dot is an update at which the group is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from groupwise._spelling import counted, number
from groupwise.cli.exit_status import printable
from groupwise.cli.labels import heat, label
from groupwise.cli.scale import Scale, scale_of
from groupwise.plan.preview import Panel, Preview, Row

BLOCKS = "▁▂▃▄▅▆▇█"
FROZEN = "·"
_NUMBER = 8
_NARROWEST = 12


def picture(preview: Preview, console: Console) -> Iterator[Text]:
    """The lines of the picture, as wide as `console`."""
    labels = [label(row.names, 1000) for panel in preview.panels for row in panel.rows]
    longest = max(map(cell_len, labels), default=0)
    page = _Page(preview, min(longest, max(console.width * 3 // 10, 12)), console.width)
    for panel in preview.panels:
        if not panel.named:
            yield from page.panel([panel], panel.title)
    named = [panel for panel in preview.panels if panel.named]
    if named:
        yield from page.panel(named, "values")


class _Page:
    """The columns that all panels share: labels, time, three numbers."""

    def __init__(self, preview: Preview, label: int, width: int) -> None:
        self._preview = preview
        self._label = label
        self._cells = max(width - label - 3 * _NUMBER - 2, _NARROWEST)

    def panel(self, panels: Sequence[Panel], title: str) -> Iterator[Text]:
        """One titled block; several panels in it have each their own scale."""
        yield Text("")
        yield self._heading(panels, title)
        for panel in panels:
            scale = scale_of(panel)
            for row in panel.rows:
                yield self._line(row, scale)
        yield Text(f"{' ' * (self._label + 2)}{self._axis()}", style="dim")

    def _heading(self, panels: Sequence[Panel], title: str) -> Text:
        heading = Text(set_cell_size(printable(title), self._label + 2), style="bold")
        note = _note(panels)
        heading.append(set_cell_size(note if cell_len(note) <= self._cells else "", self._cells), style="dim")
        for word in ("start", "peak", "end"):
            heading.append(word.rjust(_NUMBER), style="dim")
        return heading

    def _line(self, row: Row, scale: Scale) -> Text:
        line = Text(set_cell_size(label(row.names, self._label), self._label + 2))
        for i in range(self._cells):
            at = round(i * (len(row.values) - 1) / (self._cells - 1))
            if row.trains[at]:
                share = scale.share(row.values[at])
                line.append(BLOCKS[round(share * (len(BLOCKS) - 1))], style=heat(share))
            else:
                line.append(FROZEN, style="dim")
        for value in (row.start, row.peak, row.end):
            line.append(number(value, 3).rjust(_NUMBER))
        return line

    def _axis(self) -> str:
        """Steps under the cells; the last tick is the end of the run."""
        total, cells = self._preview.total_steps, self._cells
        end = counted(total, "step")
        line = "0" if cells > len(end) + 2 else ""
        for step in _ticks(total, max(cells // 10, 1)):
            column, text = round(step / total * (cells - 1)), f"{step:,}"
            if len(line) + 2 <= column and column + len(text) + 2 <= cells - len(end):
                line = line.ljust(column) + text
        return line.ljust(cells - len(end)) + end


def _note(panels: Sequence[Panel]) -> str:
    reactive = ", as if no plateau were met" if any(panel.reactive for panel in panels) else ""
    if len(panels) > 1:
        return f"each from its lowest to its highest{reactive}"
    scale = scale_of(panels[0])
    kind = ", log" if scale.logarithmic else ""
    return f"{BLOCKS[0]} {number(scale.low, 3)} to {BLOCKS[-1]} {number(scale.high, 3)}{kind}{reactive}"


def _ticks(total: int, wanted: int) -> list[int]:
    """Round numbers of steps, about `wanted` of them, between the start and the end."""
    step = 1
    for factor in _one_two_five():
        step = factor
        if total / step <= wanted + 1:
            break
    return list(range(step, total, step))


def _one_two_five() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10
