"""The norm of the gradient before clipping: sqrt(Σ g²)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["gg"])


GRAD_NORM = Gauge("grad_norm", "gradients", ("gg",), _read)
