"""The norm of the gradient over the norm of the weights.

Surgical fine-tuning (Lee et al., 2023) ranks layers by it. It says nothing about how far an adaptive algorithm moves:
`update_ratio` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["gg"] / sums["ww"]) if sums["ww"] else None


RELATIVE_GRADIENT = Gauge("relative_gradient", "weights", ("gg", "ww"), _read)
