"""Freezing inside a compiled step.

Keras fixes the set of variables that it differentiates when the step is compiled, so a part cannot join or leave it
at some update. Here every variable stays in it, and a group that is frozen for the moment takes its step and gives it
back: weights and state are those from before (`where(trains, after, before)`), so momenta, step counts and weight decay
stand still with it. A group that never trains has no optimizer and no state at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import keras

from groupwise.plan import Timeline


@final
class Span(NamedTuple):
    """The updates in which a group trains: from `start` on and before `end`; None is no bound."""

    start: int | None
    end: int | None

    @property
    def always(self) -> bool:
        """Whether it trains at every update."""
        return self.start is None and self.end is None

    def at(self, step: Any) -> Any:
        """Whether it trains at update `step`: a boolean tensor of shape []."""
        begun = keras.ops.greater_equal(step, self.start or 0)
        return begun if self.end is None else keras.ops.logical_and(begun, keras.ops.less(step, self.end))


def span(timeline: Timeline | None, total_steps: int | None, steps_per_epoch: int | None) -> Span:
    """When a timeline trains, in updates. `LengthError` if a length is in a unit whose size is None."""
    if timeline is None:
        return Span(None, None)
    start = None if timeline.start is None else timeline.times * timeline.start.resolve(total_steps, steps_per_epoch)
    end = None if timeline.end is None else timeline.end.resolve(total_steps, steps_per_epoch)
    return Span(start or None, end)
