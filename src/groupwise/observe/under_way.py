"""What the loop has given of one update, and the update between its hooks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, final

from groupwise.observe.grouping import NOTHING
from groupwise.observe.measurement import Measurement
from groupwise.observe.noise import FirstMicroBatch
from groupwise.observe.user_metrics import UserMetrics


@final
@dataclass
class Given:
    """Numbers and micro-batches, of the update that comes next or of the one that is under way."""

    metrics: UserMetrics = field(default_factory=UserMetrics)
    batch: FirstMicroBatch | None = None


@final
@dataclass
class UnderWay:
    """An update that has begun.

    Args:
        loop_given: what the loop has given of it.
        measurement: what is measured of it.
        shown: whether its gradients were shown in its closure, before clipping there.
        thread: the thread that makes it.
    """

    loop_given: Given
    measurement: Measurement
    shown: bool = False
    thread: int = field(default_factory=threading.get_ident)


def unmeasured() -> Measurement:
    """The measurement of an update of which nothing is."""
    return Measurement(NOTHING, frozenset(), 1)


RESTING: Final = unmeasured()
"""The measurement of every update at which no family is due: nobody asks for its gradients."""
RESTING.has_gradients = True
