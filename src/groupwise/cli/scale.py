"""How high, or how hot, a value is drawn: from 0 to 1 of what a panel spans.

Logarithmic where more than a quarter of the picture lies over a decade below its top, as learning rates under
layer-wise decay do; linear elsewhere. A logarithmic scale reaches a decade and a half below the lowest row's peak: what
a cosine passes on its way to zero would otherwise leave no room for anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from groupwise.plan.preview import Panel

_BELOW_THE_LOWEST_PEAK = 10**1.5


@dataclass(frozen=True)
class Scale:
    """From `low`, drawn as 0, to `high`, drawn as 1."""

    low: float
    high: float
    logarithmic: bool

    def share(self, value: float) -> float:
        """Where `value` lies between the ends, cut off at both."""
        if self.high <= self.low:
            return 0.0
        if not self.logarithmic:
            share = (value - self.low) / (self.high - self.low)
        elif value <= 0:
            share = 0.0
        else:
            low, high = math.log(self.low), math.log(self.high)  # the quotient may be more than a float holds
            share = (math.log(value) - low) / (high - low)
        return float(min(max(share, 0.0), 1.0))

    def at(self, share: float) -> float:
        """The value that is drawn at `share`."""
        if self.logarithmic:
            return self.low * math.exp(share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)


def scale_of(panel: Panel) -> Scale:
    """The scale that shows every row of a panel."""
    values = sorted(value for row in panel.rows for value in (*row.values, row.peak))
    low, high = values[0], values[-1]
    positive = [value for value in values if value > 0]
    if low < 0 or not positive or positive[len(positive) // 4] > high / 10:
        from_zero = low >= 0 and (low < high / 2 or low == high)
        return Scale(0.0 if from_zero else low, high, logarithmic=False)
    lowest_peak = min(row.peak for row in panel.rows if row.peak > 0)
    return Scale(max(positive[0], lowest_peak / _BELOW_THE_LOWEST_PEAK), high, logarithmic=True)
