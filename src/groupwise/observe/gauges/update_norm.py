"""The norm of the exact update Δ = w' − w."""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["dd"])


UPDATE_NORM = Gauge("update_norm", "updates", ("dd",), _read)
