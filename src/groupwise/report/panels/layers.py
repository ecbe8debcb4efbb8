"""By layer: which layer learns when, as heat maps of layer and step, in the order of the model.

Shown for a run whose lines are of layers (`Observer(optimizer, run, by="layer")`), whatever the optimizer: one plain
AdamW has its layers, too.
"""

from __future__ import annotations

from typing import Final

from groupwise.report.document import Figure, Panel
from groupwise.report.panels.plots import Plot, heat_map
from groupwise.report.reading import Reading

_SHOWN: Final = (
    ("grad_norm", Plot("Gradient norm of each layer", "‖g‖", logarithmic=True)),
    ("update_ratio", Plot("Update over weight of each layer", "‖Δw‖ / ‖w‖", logarithmic=True)),
    ("contribution", Plot("Contribution of each layer", "loss", ramp="signed")),
    ("activation_rms", Plot("Size of each layer's activations", "rms", logarithmic=True)),
    ("dead_units", Plot("Dead units of each layer", "share of units")),
)


def panel(reading: Reading) -> Panel:
    """A heat map for each statistic that layers have."""
    lead = "Rows are layers from the input to the output, columns are steps."
    if reading.run.header.by != "layer":
        how = '`Observer(optimizer, run, by="layer")` records each layer, whatever its group.'
        return Panel(
            "layers", "By layer", lead, missing=reading.no_record(f"are of {reading.run.header.by}s", f". {how}")
        )
    figures: list[Figure] = [
        heat_map(series, plot, plot.title) for name, plot in _SHOWN if (series := reading.statistic(name))
    ]
    missing = "" if figures else "The records hold no statistics of layers."
    return Panel("layers", "By layer", lead, tuple(figures), missing)
