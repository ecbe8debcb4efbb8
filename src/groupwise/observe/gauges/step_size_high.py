"""The 90th percentile of |Δ| over the learning rate among a sample of the group's entries."""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["high"]


STEP_SIZE_HIGH = Gauge("step_size_high", "updates", ("high",), _read)
