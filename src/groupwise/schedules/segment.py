"""The stretch of training that a schedule sees, in steps as far as anyone said.

A whole run is one segment; `then` cuts it in two. Percentages are of the segment.
"""

from __future__ import annotations

from typing import NamedTuple, final

from groupwise.errors import LengthError
from groupwise.schedules.lengths import Length, length


@final
class Segment(NamedTuple):
    """Sizes of a segment, None where unknown, and the part of it, in steps, that a warmup took."""

    total_steps: int | None
    steps_per_epoch: int | None
    warmup: int = 0

    def steps(self, span: Length | str) -> int:
        """`span` in steps. Raises `LengthError` when its unit needs a size that is None."""
        return length(span).resolve(self.total_steps, self.steps_per_epoch)

    def after(self, n: int) -> Segment:
        """What is left of it after n steps."""
        return Segment(None if self.total_steps is None else max(0, self.total_steps - n), self.steps_per_epoch)

    def rest(self) -> int:
        """The steps that the warmup leaves. Raises `LengthError` without `total_steps`."""
        if self.total_steps is None:
            raise LengthError("what the warmup leaves needs total_steps")
        return max(0, self.total_steps - self.warmup)
