"""Networks beside each other: one that moves a hundred times as fast as another.

Update ratios of networks that train together lie within a decade or two; that is a rule of thumb, so it is worth
knowing, not a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from groupwise.report.document import Sentence
from groupwise.report.numbers import formatted, median
from groupwise.report.reading import Reading
from groupwise.report.verdict.pace import STILL

APART: Final = 100.0


def networks(reading: Reading) -> Iterator[Sentence]:
    """The fastest beside the slowest of the networks that move."""
    ratios = reading.typical("update_ratio")
    found = {name: median(ratios[g] for g in groups if g in ratios) for name, groups in reading.networks.items()}
    moving = {name: ratio for name, ratio in found.items() if ratio >= STILL}
    if len(moving) < 2:
        return
    fast, slow = max(moving, key=moving.__getitem__), min(moving, key=moving.__getitem__)
    if moving[fast] > APART * moving[slow]:
        times = formatted(moving[fast] / moving[slow])
        text = f"Their median update ratios are {formatted(moving[fast])} and {formatted(moving[slow])}."
        yield Sentence("networks", "note", f"'{fast}' moves {times} times as fast as '{slow}'", text, "updates")
