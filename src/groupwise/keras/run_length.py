"""A run that goes on past the end of its schedules, where they have come to a rate of zero: nothing moves there.

A compiled step tells nobody, so the number of updates is looked at when a fit ends. One update too many is a matter of
rounding; more are not.
"""

from __future__ import annotations

import math
from typing import final

from groupwise.errors import listed
from groupwise.keras.program import Lengths
from groupwise.plan import Resolution

_SHOWN = 3


@final
class RunLength:
    """Tells once of updates that were made at a rate of zero."""

    def __init__(self) -> None:
        self._told = False

    def fitted(self, resolution: Resolution, lengths: Lengths, updates: int) -> str:
        """What is to be said after a fit that ended with `updates` made in all; empty if all is well."""
        total = lengths.total_steps
        if self._told or total is None or updates <= total + math.ceil(total / 100):
            return ""
        rates = {group.name: group.settings.get("learning_rate") for group in resolution.groups}
        still = [name for name, rate in rates.items() if rate is not None and rate.at(total, *lengths) == 0]
        self._told = bool(still)
        if not still:
            return ""
        return (
            f"the run went on past its end: GroupedOptimizer was given total_steps={total}, {updates} updates were "
            f"made, and from {total} on the learning rate of {listed(still, _SHOWN)} is 0, so that nothing moves. "
            "Give it the length of the whole run, in updates: epochs × batches"
        )
