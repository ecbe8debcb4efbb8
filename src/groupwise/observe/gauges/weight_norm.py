"""The norm of the weights before the update: sqrt(Σ w²)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["ww"])


WEIGHT_NORM = Gauge("weight_norm", "weights", ("ww",), _read)
