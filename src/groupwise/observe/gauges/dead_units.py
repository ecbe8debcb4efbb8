"""The share of a layer's units that are exactly 0 on the whole batch, after what follows the layer."""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["du"] / sums["dn"] if sums["dn"] else None


DEAD_UNITS = Gauge("dead_units", "weights", ("du", "dn"), _read)
