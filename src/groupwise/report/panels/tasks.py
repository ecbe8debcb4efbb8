"""Losses and weights: what was logged of the whole, and of every task beside its own beginning."""

from __future__ import annotations

import math
from array import array

from groupwise.records import Series
from groupwise.report.document import Figure, Guide, Panel
from groupwise.report.numbers import finite
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import ByName, Reading

_HOW = "Log them as they are computed: `observer.log(loss=…, balance=result)`."


def panel(reading: Reading) -> Panel:
    """The tasks' losses over their first value, their weights, then whatever was logged by name."""
    figures: list[Figure] = []
    losses = {task: relative(series) for task, series in reading.tasks("loss").items()}
    if losses:
        begun = (Guide(1.0, "where it began"),)
        plot = Plot("Loss of each task, over its first", "loss / first loss", _wide(losses), begun)
        figures += over_time(losses, plot)
    weights = reading.tasks("weight")
    if weights:
        figures += over_time(weights, Plot("Weight of each task", "weight", _wide(weights)))
    for name, series in reading.scalars.items():
        if name != "noise_scale":
            figures += over_time({name: series}, Plot(f"Logged: {name}", name, _wide({name: series})))
    lead = "Each task beside its own beginning, so that losses of any unit can be compared: below 1 it has learned."
    lead += " What Keras logs are running means over the epoch." if reading.of_keras else ""
    missing = "" if figures else reading.no_record("hold no losses", f". {_HOW}")
    return Panel("losses", "Losses and weights", lead, tuple(figures), missing)


def relative(series: Series) -> Series:
    """A series over its first value that is a number and not 0; as it is, where there is none."""
    first = next((value for value in series.values if math.isfinite(value) and value), 1.0)
    return Series(series.steps, array("d", (value / abs(first) for value in series.values)))


def _wide(series: ByName) -> bool:
    """Whether all values are positive and span more than two decades."""
    values = [value for found in series.values() for value in finite(found.values)]
    return bool(values) and min(values) > 0 and max(values) > 100 * min(values)
