"""Whose updates lowered the loss, to first order, and whose raised it.

A group's updates raised the loss if the mean of its contributions lies below 0 by more than 3 standard errors
(autocorrelation counted: one run in 700 by chance), in at least 8 records, and they are more than 5 % of what all
groups did. What lowered a loss most is said of a loss that fell: along steps that are too long the first order is no
fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence
from groupwise.report.numbers import finite, percent, quoted, total
from groupwise.report.reading import Reading
from groupwise.report.trend import is_above
from groupwise.report.verdict.losses import main, stalled

RAISED: Final = 0.05


def contributions(reading: Reading) -> Iterator[Sentence]:
    """Which group lowered the loss most, and whose updates raised it."""
    found = {group: finite(series.values) for group, series in reading.statistic("contribution").items()}
    totals = {group: total(values) for group, values in found.items() if len(values) >= 3}
    lowered = total(max(value, 0.0) for value in totals.values())
    every = total(map(abs, totals.values()))
    most = max(totals, key=totals.__getitem__, default="")
    if (
        len(totals) > 1
        and lowered > 0
        and main(reading) is not None
        and not stalled(reading)
        and is_above(found[most], 0.0)
    ):
        part, records = percent(totals[most] / lowered), len(found[most])
        text = (
            f"To first order, its updates account for {part} of what all groups took off the loss ({records} records)."
        )
        yield Sentence("contribution", "fine", f"'{most}' lowered the loss most", text, "contributions")
    raised = [g for g, value in totals.items() if value < -RAISED * every and is_above([-v for v in found[g]], 0.0)]
    if raised:
        parts = ", ".join(percent(-totals[group] / every) for group in raised[:4])
        text = (
            f"Summed over the records, these updates raised it to first order ({parts} of all contributions). "
            "Momentum, weight decay or a balanced gradient can do that; so can a step that is too long."
        )
        yield Sentence(
            "contribution-negative", "note", f"{quoted(raised)} worked against the loss", text, "contributions"
        )
