"""The gradient noise scale: the batch size at which noise and signal of the gradient are equal.

McCandlish et al., An Empirical Model of Large-Batch Training (arXiv 1812.06162).
"""

from __future__ import annotations

from typing import Final

from groupwise.report.document import Panel
from groupwise.report.panels.plots import Plot, over_time
from groupwise.report.reading import Reading

WHOLE: Final = "whole model"


def panel(reading: Reading) -> Panel:
    """The noise scale over time."""
    lead = "In samples: batches far below it are mostly noise, batches far above it buy little. A noisy estimate."
    found = ({WHOLE: reading.noise} if reading.noise else {}) | dict(reading.statistic("noise_scale"))
    if not found:
        how = "Accumulate gradients over micro-batches, and call `observer.micro_batch(samples)` after each backward."
        return Panel(
            "noise", "Gradient noise scale", lead, missing=reading.no_record("hold no `noise_scale`", f". {how}")
        )
    plot = Plot("Gradient noise scale", "samples", logarithmic=True)
    return Panel("noise", "Gradient noise scale", lead, over_time(found, plot))
