"""The picture as one HTML page that needs no network: plotly's own script is inside it.

As in `static_image`, each panel is a set of lines and a heat map over the same steps; here every value can be read by
pointing at it. Heat is the share of the panel's scale, so that one colour bar means the same on a logarithmic scale.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from groupwise._spelling import number
from groupwise.cli.exit_status import printable
from groupwise.cli.labels import label, palette
from groupwise.cli.scale import Scale, scale_of
from groupwise.plan.preview import Panel, Preview, Row

_OFFLINE = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""}
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body style="margin: 0; font-family: sans-serif">
{figure}
</body>
</html>
"""


def page(preview: Preview, title: str) -> bytes:
    """The whole page."""
    heights = [max(22 * len(panel.rows), 160) for panel in preview.panels]
    room = 70
    total = sum(heights) + room * len(heights)
    figure = make_subplots(
        rows=len(heights),
        cols=2,
        column_widths=[0.47, 0.47],
        horizontal_spacing=0.1,
        row_heights=[height / sum(heights) for height in heights],
        vertical_spacing=room / total if len(heights) > 1 else 0.0,
        subplot_titles=[text for panel in preview.panels for text in (f"<b>{_text(panel.title)}</b>", "")],
    )
    for i, panel in enumerate(preview.panels, start=1):
        _lines(figure, i, panel, preview)
        _heat(figure, i, panel, preview)
    figure.update_xaxes(tickformat=",")
    figure.update_xaxes(title_text="step", row=len(heights))
    figure.update_layout(
        height=total + 110,
        showlegend=False,
        template="plotly_white",
        title={"text": _text(title), "font": {"size": 14, "color": "#777777"}},
        margin={"l": 70, "r": 30, "t": 90, "b": 50},
    )
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, config=_OFFLINE)
    return _PAGE.format(title=html.escape(printable(title)), figure=drawn).encode()


def _lines(figure: Any, i: int, panel: Panel, preview: Preview) -> None:
    for row, colour in zip(panel.rows, palette(len(panel.rows)), strict=True):
        name = _text(label(row.names, 60))
        for on, dash in ((True, "solid"), (False, "dot")):
            values = [v if trained is on else None for v, trained in zip(row.values, row.trains, strict=True)]
            if any(value is not None for value in values):
                line = {"color": colour, "width": 2, "dash": dash}
                shown_on_hover = f"{name}{'' if on else ' (frozen)'}<br>step %{{x:,}}: %{{y:.4g}}<extra></extra>"
                trace = go.Scatter(x=preview.steps, y=values, mode="lines", line=line, hovertemplate=shown_on_hover)
                figure.add_trace(trace, row=i, col=1)
    scale = scale_of(panel)
    if scale.logarithmic:
        span = [math.log10(scale.low / 1.15), math.log10(scale.high * 1.3)]
        figure.update_yaxes(type="log", dtick=1, exponentformat="e", range=span, row=i, col=1)


def _heat(figure: Any, i: int, panel: Panel, preview: Preview) -> None:
    scale = scale_of(panel)
    heat = go.Heatmap(
        x=preview.steps,
        y=list(range(len(panel.rows))),
        z=[_shares(row, scale) for row in panel.rows],
        text=[[number(value) for value in row.values] for row in panel.rows],
        customdata=[[_text(label(row.names, 60))] * len(row.values) for row in panel.rows],
        hovertemplate="%{customdata}<br>step %{x:,}: %{text}<extra></extra>",
        zmin=0,
        zmax=1,
        colorscale="Viridis",
        ygap=1,
        colorbar=_colour_bar(scale, figure.get_subplot(i, 2).yaxis.domain),
    )
    figure.add_trace(heat, row=i, col=2)
    figure.add_shape(
        type="rect", x0=0, x1=1, y0=0, y1=1, xref="x domain", yref="y domain",
        fillcolor="#dddddd", line_width=0, layer="below", row=i, col=2,
    )  # fmt: skip
    names = [_legend(row, colour) for row, colour in zip(panel.rows, palette(len(panel.rows)), strict=True)]
    figure.update_yaxes(
        row=i, col=2, side="right", autorange="reversed", tickvals=list(range(len(names))), ticktext=names,
        automargin=True, showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_xaxes(row=i, col=2, showgrid=False, zeroline=False)


def _legend(row: Row, colour: str) -> str:
    return f'<span style="color: {colour}">■</span> {_text(label(row.names, 44))}'


def _shares(row: Row, scale: Scale) -> list[float | None]:
    return [scale.share(v) if trained else None for v, trained in zip(row.values, row.trains, strict=True)]


def _colour_bar(scale: Scale, domain: Sequence[float]) -> dict[str, object]:
    """Between the lines and the heat map, as high as they are."""
    bottom, top = domain
    shares = [0.0, 0.25, 0.5, 0.75, 1.0] if scale.high > scale.low else [1.0]
    place = {"x": 0.475, "xanchor": "left", "y": (top + bottom) / 2, "len": top - bottom}
    values = {"tickvals": shares, "ticktext": [number(scale.at(share), 3) for share in shares]}
    return {**place, **values, "thickness": 10, "outlinewidth": 0}


def _text(text: str) -> str:
    return html.escape(printable(text), quote=False)
