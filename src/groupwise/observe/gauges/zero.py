"""The share of the entries of the gradient that are exactly 0: dead units, unused rows of a table."""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["zeros"] / sums["present"] if sums["present"] else None


ZERO = Gauge("zero", "weights", ("zeros", "present"), _read)
