"""The 10th percentile of |Δ| over the learning rate among a sample of the group's entries.

An adaptive algorithm gives every parameter a step size of its own, which no setting shows: this and the 90th
percentile say how far they lie apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["low"]


STEP_SIZE_LOW = Gauge("step_size_low", "updates", ("low",), _read)
