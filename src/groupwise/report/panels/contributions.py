"""Which group lowered the loss: −⟨gradient, update⟩, to first order, summed over the records."""

from __future__ import annotations

import itertools
import math
from array import array

from groupwise.records import Series
from groupwise.report.document import Figure, Guide, Panel
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import Reading

_WHICH = {
    "contribution": "Contribution of each group, summed",
    "path_contribution": "Contribution along the path, summed",
}


def panel(reading: Reading) -> Panel:
    """The running sum of every group's contribution."""
    lead = (
        "By how much each group's updates lowered the loss, to first order, summed over the recorded steps. A line "
        "that falls belongs to a group whose updates raised the loss. Large steps are overestimated."
    )
    figures: list[Figure] = []
    for statistic, title in _WHICH.items():
        series = {group: summed(found) for group, found in reading.statistic(statistic).items()}
        if series:
            figures += over_time(series, Plot(title, "loss", guides=(Guide(0.0, "0"),), ramp="signed"))
    missing = "" if figures else reading.no_record("hold no `contribution`", ": leave the observer's `updates` on.")
    return Panel("contributions", "Contributions", lead, tuple(figures), missing)


def summed(series: Series) -> Series:
    """The running sum, in which what is not finite counts nothing."""
    values = (value if math.isfinite(value) else 0.0 for value in series.values)
    return Series(series.steps, array("d", itertools.accumulate(values)))
