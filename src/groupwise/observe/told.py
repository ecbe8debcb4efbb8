"""What the loop has told of one update, and the update between its hooks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import final

from groupwise.observe.grouping import NOTHING
from groupwise.observe.logged import Logged
from groupwise.observe.noise import FirstMicroBatch
from groupwise.observe.taking import Taking


@final
@dataclass
class Told:
    """Numbers and micro-batches, of the update that comes next or of the one that is under way."""

    logged: Logged = field(default_factory=Logged)
    batch: FirstMicroBatch | None = None


@final
@dataclass
class UnderWay:
    """An update that has begun.

    Args:
        told: what was told of it.
        taking: what is measured of it.
        shown: whether its gradients were shown in its closure, before clipping there.
        thread: the thread that makes it.
    """

    told: Told
    taking: Taking = field(default_factory=lambda: Taking(NOTHING, frozenset(), 1))
    shown: bool = False
    thread: int = field(default_factory=threading.get_ident)
