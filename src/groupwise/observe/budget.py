"""How much of the training's time measuring may take, and how far the cadences are stretched where it takes more.

Norms of all gradients cost one percent of a step of any size, but a record has some hundred small operations, whatever
the model; of a step of ten milliseconds that is another three percent. So the observer watches its own clock: F is what
it takes of a step at any cadence (its hooks, what is logged, what is written), M what it takes to measure, P the rest
of the step. When `UPDATES` updates and `SECONDS` seconds have passed, the cadences are stretched by the least whole k
with F + M / k <= `SHARE` P; then F, which is better known where not every update is measured, is looked at once more. A
run that is shorter is recorded whole, since nobody waits for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, final

SHARE: Final = 0.025
"""Of the training's time."""
SETTLING: Final = 20
"""The updates that do not count: caches are filled and buffers allocated in them."""
UPDATES: Final = 200
SECONDS: Final = 10.0
UNSEEN: Final = 1e-4
"""Seconds of an update that no clock in here sees: torch calls two hooks, with empty caches."""
FARTHEST: Final = 100
"""By what cadences are stretched at most."""
_ROUNDING: Final = 1.001
"""What is above the budget by less is within it."""
FEWEST: Final = 20
"""How many exact updates a run of known length keeps."""


Clock = Callable[[], float]


@final
class Stopwatch:
    """The seconds that passed in its `with` statements."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = self._began = 0.0
        self._clock = clock

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._began


@final
class Budget:
    """What an observer takes of the training's time.

    Args:
        total_steps: the updates of the whole run, if that is known.
        turn: in how many updates every usual family is measured once.
        clock: seconds.
        unseen: seconds of an update to be added to what is observed.

    Attributes:
        observing: the seconds of all that the observer does.
        measuring: those of them that go with the cadences.
    """

    def __init__(
        self, total_steps: int | None, turn: int, clock: Clock = time.perf_counter, unseen: float = 0.0
    ) -> None:
        self.observing, self.measuring = Stopwatch(clock), Stopwatch(clock)
        self._clock, self._turn, self._unseen = clock, turn, unseen
        self._left = FARTHEST if total_steps is None else max(1, min(FARTHEST, total_steps // (turn * FEWEST)))
        self._updates, self._began = 0, 0.0

    def ended(self) -> bool:
        """An update has ended. Returns whether the budget can be decided on."""
        self._updates += 1
        if self._updates == SETTLING:
            self.observing.seconds = self.measuring.seconds = 0.0
            self._began = self._clock()
        counted = self._updates - SETTLING
        return counted >= UPDATES and counted % self._turn == 0 and self._clock() - self._began >= SECONDS

    def spent(self) -> tuple[float, float]:
        """The seconds of an update without the observer, and the observer's share of them."""
        rest = self._rest()
        return rest / (self._updates - SETTLING), self._observed() / rest

    def stretch(self) -> int:
        """The least k with F + M / k within the budget (where F alone is not, with M / k within a fifth of it).

        What follows is counted anew.
        """
        rest, measuring = self._rest(), self.measuring.seconds
        room = max(SHARE * rest - (self._observed() - measuring), SHARE * rest / 5)
        factor = min(max(1, math.ceil(measuring / room / _ROUNDING)), self._left)
        self._updates, self._turn, self._left = 0, self._turn * factor, self._left // factor
        return factor

    def _observed(self) -> float:
        return self.observing.seconds + self._unseen * (self._updates - SETTLING)

    def _rest(self) -> float:
        """The seconds that were not the observer's."""
        return max(self._clock() - self._began - self._observed(), 1e-9)
