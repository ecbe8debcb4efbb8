"""The picture as PNG or SVG, drawn by matplotlib without a display.

Each panel is drawn twice, side by side over the same steps: lines, to read values, and a heat map, to see groups that
lie too close for lines. The names beside the heat map are the legend of both: the square before a name is its line's
colour. Where a group is frozen its line is dotted and its cells are grey.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from groupwise._spelling import number
from groupwise.cli.exit_status import printable
from groupwise.cli.labels import label, palette
from groupwise.cli.scale import Scale, scale_of
from groupwise.plan.preview import Panel, Preview, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARP = 130  # dots an inch
_TALLEST = 60_000  # dots; Agg draws no more than 2^16
_GREY = "#dddddd"
_INK = "#333333"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "groupwise",
    "font.size": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": False,
}


def static_image(preview: Preview, title: str, format: str) -> bytes:
    """The picture in `format`, "png" or "svg"."""
    heights = [_height(panel) for panel in preview.panels]
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        tall = sum(heights) + 0.6
        figure = Figure(figsize=(14, tall), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(printable(title), x=0.01, ha="left", fontsize=10, color="#777777")
        axes = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights, width_ratios=[1, 1])
        for panel, (left, right) in zip(preview.panels, axes, strict=True):
            _panel(figure, panel, preview, left, right)
        for axis in axes[-1]:
            axis.set_xlabel(_time(preview))
        data = io.BytesIO()
        metadata = {"Date": None} if format == "svg" else None
        figure.savefig(data, format=format, dpi=min(_SHARP, _TALLEST / tall), metadata=metadata)
    return data.getvalue()


def _panel(figure: Figure, panel: Panel, preview: Preview, left: Axes, right: Axes) -> None:
    scale, colours = scale_of(panel), palette(len(panel.rows))
    left.set_title(printable(panel.title), loc="left", fontweight="bold", fontsize=11)
    for row, colour in zip(panel.rows, colours, strict=True):
        _line(left, preview.steps, row, colour)
    _value_axis(left, scale)
    cells = [[v if on else math.nan for v, on in zip(row.values, row.trains, strict=True)] for row in panel.rows]
    map_ = matplotlib.colormaps["viridis"].with_extremes(bad=_GREY)
    box = (0, preview.total_steps, len(cells), 0)
    image = right.imshow(cells, aspect="auto", interpolation="nearest", extent=box, cmap=map_, norm=_norm(scale))
    spell = FuncFormatter(lambda x, _: number(float(x), 3))
    figure.colorbar(image, ax=right, fraction=0.025, pad=0.01, aspect=7 * _height(panel), format=spell)
    if not all(all(row.trains) for row in panel.rows):
        right.set_title("grey, and dotted: frozen", loc="right", fontsize=8)
    _names(right, panel.rows, colours)
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axis.set_xlim(0, preview.total_steps)


def _line(axes: Axes, steps: Sequence[int], row: Row, colour: str) -> None:
    for on, style, strength in ((True, "-", 1.0), (False, ":", 0.6)):
        values = [v if trained is on else math.nan for v, trained in zip(row.values, row.trains, strict=True)]
        axes.plot(steps, values, style, color=colour, alpha=strength, linewidth=1.6, solid_capstyle="round")


def _value_axis(axes: Axes, scale: Scale) -> None:
    axes.grid(axis="y", color="#eeeeee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if scale.logarithmic:
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(scale.low / 1.15, scale.high * 1.3)
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif scale.high > scale.low:
        room = 0.05 * (scale.high - scale.low)
        axes.set_ylim(scale.low - room, scale.high + room)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: number(float(x), 3)))


def _norm(scale: Scale) -> Normalize:
    if scale.logarithmic:
        return LogNorm(scale.low, scale.high, clip=True)
    return Normalize(scale.low, scale.high if scale.high > scale.low else scale.low + 1, clip=True)


def _names(axes: Axes, rows: Sequence[Row], colours: Sequence[str]) -> None:
    """Every name beside its row; past what can be told apart, every so many-th."""
    every = math.ceil(len(rows) / 60)
    places = [i + 0.5 for i in range(0, len(rows), every)]
    texts = [label(row.names, 44) for row in rows[::every]]
    axes.set_yticks(places, texts, fontsize=8 if len(rows) <= 30 else 6)
    axes.tick_params(axis="y", length=0, pad=14)
    for place, colour in zip(places, colours[::every], strict=True):
        axes.plot(-0.014, place, "s", color=colour, markersize=5, transform=axes.get_yaxis_transform(), clip_on=False)
    for i in range(1, len(rows) if len(rows) <= 60 else 0):
        axes.axhline(i, color="white", linewidth=0.6)


def _height(panel: Panel) -> float:
    return min(max(0.2 * len(panel.rows) + 0.6, 2.2), 12.0)


def _time(preview: Preview) -> str:
    if preview.steps_per_epoch is None:
        return "step"
    epochs = number(preview.total_steps / preview.steps_per_epoch, 3)
    return f"step  ({preview.steps_per_epoch:,} an epoch: {epochs} epochs)"
