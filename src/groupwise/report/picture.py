"""Plots of a report as a still picture, for papers and slides: SVG, PDF or PNG, drawn by matplotlib without a display.

    picture("runs/first", "updates.pdf", panel="updates")
    picture(["runs/a", "runs/b"], "losses.svg", panel="losses", width=3.3)      one column of a paper

Colours are those of Okabe and Ito (grey for yellow), which stay apart for every kind of colour vision and in print;
beyond eight lines the dashes differ as well. Axes have names and units, scales are those of the page, and lines of
several runs share one axis.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from groupwise._atomic import obstacle, replacing
from groupwise._paths import path_of
from groupwise._spelling import printable
from groupwise.errors import RecordError, unknown
from groupwise.report.document import Heat, Lines, Report
from groupwise.report.numbers import formatted
from groupwise.report.sources import Source, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c8c8c")
_DASHES: Final = ("-", "--", ":", "-.")
_AXIS: Final = 0.36
"""Inches that ticks and the name of an axis take below it."""
FORMATS: Final = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
_STYLE: Final[dict[Any, Any]] = {
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "groupwise", "pdf.fonttype": 42, "font.size": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5",
    "legend.frameon": False, "lines.linewidth": 1.2,
}  # fmt: skip


def picture(
    run: Source | Report | Sequence[Source],
    out: str | os.PathLike[str],
    panel: str = "losses",
    *,
    width: float = 6.7,
    height: float = 2.4,
    dpi: int = 300,
) -> Path:
    """Draw the plots of a panel, one below the other, into a file, which is whole or as it was.

    Args:
        run: what `describe` takes, or a report.
        out: the file; its suffix says the format: .svg, .pdf or .png.
        panel: the key of a panel with plots: "losses", "schedules", "updates", "gradients", "layers", …
        width, height: of each plot, in inches. 3.3 is a column of most papers, 6.7 a page.
        dpi: dots an inch, for .png.

    Returns:
        The path of the file.

    Raises:
        RecordError: there is nothing to draw, the suffix is no picture's, there is no such directory, or matplotlib is
            not installed (`pip install groupwise[plot]`).
        OSError: the file cannot be written, as on a full disk; it is as it was.
    """
    path = path_of(out, RecordError, "the picture")
    if path.suffix.lower() not in FORMATS:
        raise RecordError(f"{path}: {unknown('suffix of a picture', path.suffix, FORMATS)}")
    if reason := obstacle(path):
        raise RecordError(f"{path}: cannot write it: {reason}")
    report = run if isinstance(run, Report) else describe(run)
    drawn = _plots(report, panel)
    data = _draw(report, drawn, FORMATS[path.suffix.lower()], (width, height), dpi)
    with replacing(path) as file:
        file.write(data)
    return path


def _plots(report: Report, key: str) -> dict[str, list[tuple[str, Lines | Heat]]]:
    """By title, the run's name and the plot."""
    keys = {panel.key for run in report.runs for panel in run.panels}
    if key not in keys:
        raise RecordError(unknown("panel", key, sorted(keys)))
    found: dict[str, list[tuple[str, Lines | Heat]]] = {}
    for run in report.runs:
        for figure in (figure for panel in run.panels if panel.key == key for figure in panel.figures):
            if isinstance(figure, Lines) or (isinstance(figure, Heat) and not figure.title.endswith(": all at once")):
                found.setdefault(figure.title, []).append((run.name, figure))
    if not found:
        missing = next(panel.missing for run in report.runs for panel in run.panels if panel.key == key)
        raise RecordError(f"the panel {key!r} has no plot: {missing or 'it holds tables only'}")
    return found


def _draw(
    report: Report, drawn: dict[str, list[tuple[str, Lines | Heat]]], form: str, size: tuple[float, float], dpi: int
) -> bytes:
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RecordError(
            "a picture is drawn by matplotlib, which is not installed: pip install groupwise[plot]"
        ) from error
    data = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        panes = [pane for plots in drawn.values() for pane in _panes(plots)]
        tall = [size[1] + 0.15 * -(-_entries(plots) // max(int(size[0] / 1.5), 1)) for _, plots in panes]
        figure = Figure(figsize=(size[0], sum(tall)), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(panes), 1, squeeze=False, height_ratios=tall)[:, 0]
        for axes, (title, plots) in zip(rows, panes, strict=True):
            axes.set_title(printable(title), loc="left", fontsize=9)
            first = plots[0][1]
            axes.set_xlabel(first.across if isinstance(first, Heat) else "step")
            if isinstance(first, Heat):
                _cells(axes, first)
            else:
                _lines(axes, [(name, plot) for name, plot in plots if isinstance(plot, Lines)], len(report.runs) > 1)
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[form]
        figure.savefig(data, format=form, dpi=dpi, metadata=metadata)
    return data.getvalue()


def _panes(plots: list[tuple[str, Lines | Heat]]) -> list[tuple[str, list[tuple[str, Lines | Heat]]]]:
    """Lines of several runs share their axes; heat maps have their own."""
    title = plots[0][1].title
    if isinstance(plots[0][1], Lines):
        return [(title, plots)]
    return [(f"{title} ({name})" if len(plots) > 1 else title, [(name, plot)]) for name, plot in plots]


def _lines(axes: Axes, plots: list[tuple[str, Lines]], several: bool) -> None:
    """A colour for each name, a dash for each run (or for every eight names)."""
    first = plots[0][1]
    names = list(dict.fromkeys(line.name for _, plot in plots for line in plot.lines if not line.faint))
    for number, (run, plot) in enumerate(plots):
        for line in (line for line in plot.lines if not line.faint):
            at = names.index(line.name)
            dashes = _DASHES[(number if several else at // len(PALETTE)) % len(_DASHES)]
            label = run if several and len(names) == 1 else f"{line.name} ({run})" if several else line.name
            shown = [value if math.isfinite(value) else math.nan for value in line.values]
            colour = PALETTE[(number if len(names) == 1 else at) % len(PALETTE)]
            axes.plot(line.steps, shown, dashes, color=colour, label=printable(label) or "(no name)")
    for guide in first.guides:
        axes.axhline(guide.value, color="#777777", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(printable(guide.text), (0.995, guide.value), xycoords=("axes fraction", "data"), ha="right",
                      va="bottom", fontsize=7, color="#555555")  # fmt: skip
    axes.set_ylabel(first.unit)
    if first.logarithmic:
        axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(lambda value, _: formatted(float(value)))
    axes.yaxis.set_minor_formatter(lambda value, _: _between(float(value), *axes.get_ylim()))
    axes.locator_params(axis="x", integer=True)
    if _entries(plots) > 1:
        _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the name of the axis of steps, however high the plot is."""
    from matplotlib.transforms import ScaledTranslation

    below = axes.transAxes + ScaledTranslation(0, -_AXIS, axes.figure.dpi_scale_trans)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, ncols=_across(axes))


def _between(value: float, low: float, high: float) -> str:
    """The label of a tick between powers of ten, where a scale has few of these: matplotlib's own is a formula, and
    none is read here, where names may hold a dollar sign.
    """
    if not 0 < low < high < 30 * low or value <= 0:
        return ""
    leading = value / 10 ** math.floor(math.log10(value))
    return formatted(value) if high < 3 * low or any(abs(leading - each) < 1e-6 for each in (2, 5)) else ""


def _entries(plots: Sequence[tuple[str, Lines | Heat]]) -> int:
    return sum(not line.faint for _, plot in plots if isinstance(plot, Lines) for line in plot.lines)


def _across(axes: Axes) -> int:
    """As many entries of a legend as stand side by side, an inch and a half each."""
    width = axes.figure.get_figwidth() if axes.figure is not None else 1.5  # type: ignore[union-attr]
    return max(int(width / 1.5), 1)


def _cells(axes: Axes, heat: Heat) -> None:
    from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
    from matplotlib.ticker import FuncFormatter

    known = [value for row in heat.cells for value in row if math.isfinite(value) and (value > 0 or heat.ramp != "log")]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    norm: Normalize
    if heat.ramp == "signed":
        edge = max(abs(low), abs(high)) or 1.0
        norm = TwoSlopeNorm(0.0, -edge, edge)
    elif heat.ramp == "log" and known:
        norm = LogNorm(low, max(high, low * 1.01), clip=True)
    else:
        norm = Normalize(low, high if high > low else low + 1)
    image = axes.imshow(
        heat.cells,
        aspect="auto",
        interpolation="nearest",
        norm=norm,
        cmap="RdBu" if heat.ramp == "signed" else "cividis",
    )
    axes.grid(visible=False)
    every, down = max(len(heat.columns) // 6, 1), max(len(heat.rows) // 30 + 1, 1)
    axes.set_xticks(range(0, len(heat.columns), every), [printable(column) for column in heat.columns[::every]])
    axes.set_yticks(range(0, len(heat.rows), down), [printable(row) for row in heat.rows[::down]])
    if axes.figure is not None:
        bar = axes.figure.colorbar(image, ax=axes, label=heat.unit, format=lambda value, _: formatted(float(value)))
        bar.minorformatter = FuncFormatter(lambda value, _: _between(float(value), norm.vmin or 1.0, norm.vmax or 1.0))
        bar.outline.set_visible(False)
