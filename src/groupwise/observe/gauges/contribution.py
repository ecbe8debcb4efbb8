"""−⟨g, Δ⟩ over the group: by how much this update of this group lowers the loss, to first order.

g is the gradient before clipping, of the loss as it was on this batch. The sum over the groups is the first-order
change of the loss; a group with a negative one went uphill.
"""

from __future__ import annotations

from collections.abc import Mapping

from groupwise.observe.gauges.gauge import Gauge


def _read(sums: Mapping[str, float]) -> float | None:
    return sums["gd"]


CONTRIBUTION = Gauge("contribution", "updates", ("gd",), _read)
