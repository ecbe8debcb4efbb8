"""The number of tensors that have no gradient; left out where all have one."""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["missing"] or None


NO_GRAD = Gauge("no_grad", "gradients", ("missing",), _read)
