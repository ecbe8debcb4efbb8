"""The root mean square of Δ over the learning rate: the effective step of an entry.

Adam's lies around 0.2 to 1 whatever the gradient's size; plain SGD's is that of the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return math.sqrt(sums["ss"] / sums["moved"]) if sums["moved"] else None


STEP_SIZE = Gauge("step_size", "updates", ("ss", "moved"), _read)
