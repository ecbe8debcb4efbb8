"""The root mean square of what a layer puts out, before what follows it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["as"] / sums["an"]) if sums["an"] else None


ACTIVATION_RMS = Gauge("activation_rms", "weights", ("as", "an"), _read)
