"""One scale for one plot, whatever run it is of: side by side, a plot is logarithmic in all runs or in none.

It is logarithmic if any run asks for it and no run has a value below 0 there (what is 0 has no place on it, and the
plot's note says so), or if all values are positive and the highest of two runs differ by a factor of `APART`; else
linear, which shows everything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from groupwise.report.document import Figure, Heat, Lines, Panel, Report, RunReport

_Place = tuple[str, str]
APART: Final = 10.0


def on_common_scales(report: Report) -> Report:
    """The report, with the same kind of scale in every plot of one title."""
    kinds: dict[_Place, list[Lines]] = {}
    for run in report.runs:
        for panel in run.panels:
            for figure in panel.figures:
                if isinstance(figure, Lines):
                    kinds.setdefault((panel.key, figure.title), []).append(figure)
    logarithmic = {place: _is_logarithmic(figures) for place, figures in kinds.items()}
    return Report(tuple(_run(run, logarithmic) for run in report.runs))


def _is_logarithmic(figures: list[Lines]) -> bool:
    below = any(value < 0 for figure in figures for line in figure.lines for value in line.values)
    return (any(figure.logarithmic for figure in figures) or _lie_apart(figures)) and not below


def _lie_apart(figures: list[Lines]) -> bool:
    """Whether a linear scale that fits one run shows another as a line at 0."""
    highest = [max((v for line in f.lines for v in line.values if v > 0), default=0.0) for f in figures]
    lowest = [min((v for line in f.lines for v in line.values), default=0.0) for f in figures]
    return min(lowest, default=0.0) > 0 and max(highest) >= APART * min(highest)


def _run(run: RunReport, logarithmic: dict[_Place, bool]) -> RunReport:
    return replace(run, panels=tuple(_panel(panel, logarithmic) for panel in run.panels))


def _panel(panel: Panel, logarithmic: dict[_Place, bool]) -> Panel:
    figures: list[Figure] = []
    for figure in panel.figures:
        if isinstance(figure, Lines):
            figures.append(replace(figure, logarithmic=logarithmic[panel.key, figure.title]))
        elif isinstance(figure, Heat) and figure.ramp in ("plain", "log"):
            kind = logarithmic.get((panel.key, figure.title.removesuffix(": all at once")))
            figures.append(figure if kind is None else replace(figure, ramp="log" if kind else "plain"))
        else:
            figures.append(figure)
    return replace(panel, figures=tuple(figures))
