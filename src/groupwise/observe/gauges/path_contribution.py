"""The contribution with the gradients at both ends of the update: −⟨(g + g') / 2, Δ⟩.

The trapezoid rule on the way from w to w', as in loss change allocation (Lan et al., 2019), but with the gradients that
training computes anyway, which are of two batches: single values are noisy, their sums over many updates are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    mean = (sums["gd"] + sums["pd"]) / 2
    return mean if math.isfinite(mean) else None  # it ended in the gradients of a skipped step


PATH_CONTRIBUTION = Gauge("path_contribution", "path", ("gd", "pd"), _read)
