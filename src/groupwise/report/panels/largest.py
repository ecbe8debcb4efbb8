"""The ten groups to look at first: by how many decades each number lies outside its usual range, added up.

The ranges are rules of thumb, wide on purpose: update ratio 1e-5 to 1e-2 (of updates that moved at all), norms of the
gradient up to 10 times their median. A clipped share counts as itself, a negative contribution as its share, and a
value that is not finite as ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from groupwise.records import Series
from groupwise.report.document import Panel, Table
from groupwise.report.numbers import finite, formatted, median, percent, share, total
from groupwise.report.reading import Reading

SHOWN: Final = 10
USUAL_RATIO: Final = (1e-5, 1e-2)
USUAL_SPIKE: Final = 10.0
_NOT_FINITE: Final = 10.0


@final
@dataclass(frozen=True)
class Outlier:
    """A group, its numbers, and how far they lie outside what is usual."""

    group: str
    ratio: float
    spike: float
    clipped: float
    contribution: float
    nonfinite: int

    @property
    def score(self) -> float:
        """The decades and shares, added up."""
        low, high = USUAL_RATIO
        decades = max(_decades(self.ratio / high), _decades(low / self.ratio)) if self.ratio > 0 else 0.0
        outside = decades + _decades(self.spike / USUAL_SPIKE) + _number(self.clipped)
        return outside + max(-_number(self.contribution), 0.0) + (_NOT_FINITE if self.nonfinite else 0.0)


def panel(reading: Reading) -> Panel:
    """The ten with the highest score."""
    lead = "The groups whose numbers lie furthest outside what is usual. A place to begin, not a verdict."
    found = sorted(largest(reading), key=lambda outlier: -outlier.score)
    outside = [outlier for outlier in found if outlier.score > 0][:SHOWN]
    if not found:
        return Panel("largest", "Top ten", lead, missing="The records hold no statistics of groups.")
    if not outside:
        missing = f"Nothing to show: all numbers of all {len(found)} groups lie in their usual ranges."
        return Panel("largest", "Top ten", lead, missing=missing)
    columns = ("group", "median update ratio", "largest / median gradient", "clipped steps", "contribution",
               "non-finite records", "score")  # fmt: skip
    note = "Contribution: the group's share of the first-order change of the loss over all groups."
    return Panel("largest", "Top ten", lead, (Table("Top ten", columns, tuple(map(_row, outside)), note),))


def largest(reading: Reading) -> list[Outlier]:
    """Every group with its numbers."""
    totals = {group: total(found.values) for group, found in reading.statistic("contribution").items()}
    weight = total(map(abs, totals.values())) or 1.0
    return [
        Outlier(
            group,
            ratio=median(value for value in _of(reading, "update_ratio", group) if value > 0),
            spike=_spike(_of(reading, "grad_norm", group)),
            clipped=share([value < 1 for value in _of(reading, "clip_factor", group)]),
            contribution=totals[group] / weight if group in totals else math.nan,
            nonfinite=sum(value > 0 for value in _of(reading, "nonfinite", group)),
        )
        for group in reading.groups
        if any(group in reading.statistic(name) for name in ("update_ratio", "grad_norm", "clip_factor"))
    ]


def _of(reading: Reading, statistic: str, group: str) -> Sequence[float]:
    empty: Series | None = reading.statistic(statistic).get(group)
    return empty.values if empty else ()


def _spike(norms: Sequence[float]) -> float:
    middle = median(norms)
    return max(finite(norms)) / middle if middle > 0 else math.nan


def _decades(times: float) -> float:
    return max(math.log10(times), 0.0) if times > 0 and math.isfinite(times) else 0.0


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _row(outlier: Outlier) -> tuple[str, ...]:
    numbers = (formatted(outlier.ratio), f"{formatted(outlier.spike)} ×", percent(outlier.clipped))
    row = (outlier.group, *numbers, percent(outlier.contribution), f"{outlier.nonfinite:,}", formatted(outlier.score))
    return tuple("-" if text in ("nan", "nan ×") else text for text in row)
