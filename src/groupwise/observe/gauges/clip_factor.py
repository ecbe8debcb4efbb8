"""What clipping multiplied the gradient by, 1 where it did nothing.

Where a group is clipped twice, by its rule and by the plan, it is the product; where every parameter or module of it
is clipped by itself, the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["clip"]


CLIP_FACTOR = Gauge("clip_factor", "gradients", ("clip",), _read)
