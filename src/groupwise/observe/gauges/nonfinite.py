"""The share of the entries of the gradient that are nan or infinite; left out where there are none."""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["nonfinite"] / sums["present"] if sums["nonfinite"] and sums["present"] else None


NONFINITE = Gauge("nonfinite", "gradients", ("nonfinite", "present"), _read)
