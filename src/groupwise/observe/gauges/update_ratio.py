"""The norm of the exact update over the norm of the weights before it.

The one number that practitioners quote: around 1e-3 is usual; much more is too fast, much less stands still.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["dd"] / sums["ww"]) if sums["ww"] else None


UPDATE_RATIO = Gauge("update_ratio", "updates", ("dd", "ww"), _read)
