"""The cosine between the gradient and that of the update before, on a sample of entries.

Near 1 the steps could be longer; around 0 noise rules; below 0 the weights swing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    norm = math.sqrt(sums["aa"] * sums["bb"])
    return sums["ab"] / norm if norm else None


GRADIENT_COSINE = Gauge("gradient_cosine", "cosines", ("aa", "ab", "bb"), _read)
