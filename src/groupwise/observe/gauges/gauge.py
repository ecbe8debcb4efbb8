"""A gauge: one statistic, as a pure function of a group's sums.

The sums, each over the entries of a group (g is the gradient before clipping, w the weights before the update, Δ the
exact update, lr the learning rate of the entry):

    gg   Σ g²           ww   Σ w²            dd   Σ Δ²        gd   −Σ g·Δ       pd   −Σ g'·Δ, g' being the next gradient
    ss   Σ (Δ / lr)²    low, high   percentiles of |Δ| / lr in a sample         clip   the factor of clipping
    aa, bb, ab   Σ g², Σ g'², Σ g·g' in a sample, g' being the gradient of the update before
    zeros, nonfinite    numbers of such entries of g         missing   tensors without a gradient
    as, an       Σ a² of a layer's output a, and its entries
    du, dn       its units that are 0 throughout, and all of them
    present, moved      entries that have a gradient; that have one and a learning rate
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Gauge:
    """A statistic: its key in the records, its family, the sums it needs, and the function of them."""

    name: str
    family: str
    needs: tuple[str, ...]
    read: Callable[[Mapping[str, float]], float | None]


def readings(gauges: tuple[Gauge, ...], sums: Mapping[str, float]) -> dict[str, float]:
    """What the gauges read of a group whose sums were taken for all of them."""
    found = ((gauge.name, gauge.read(sums)) for gauge in gauges)
    return {name: value for name, value in found if value is not None}
