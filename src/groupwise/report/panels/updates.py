"""How far an update moves a group: the norm of the update over the norm of the weights, against 1e-3.

The guide is Karpathy's rule of thumb for networks that train from scratch; fine-tuning lies below it by intent.
"""

from __future__ import annotations

from typing import Final

from groupwise.report.document import Guide, Panel
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import Reading

GUIDE: Final = 1e-3


def panel(reading: Reading) -> Panel:
    """Update ratios on a logarithmic scale."""
    series = reading.statistic("update_ratio")
    lead = (
        "How large an update is beside the weights that it changes. Around 1e-3 is usual when training from scratch; "
        "far above is too fast, far below barely moves. Fine-tuning lies lower by intent."
    )
    if not series:
        missing = reading.no_record("hold no `update_ratio`", ": leave the observer's `updates` on.")
        return Panel("updates", "Update ratios", lead, missing=missing)
    plot = Plot("Update over weight", "‖Δw‖ / ‖w‖", True, (Guide(GUIDE, "1e-3"),))
    return Panel("updates", "Update ratios", lead, over_time(series, plot))
