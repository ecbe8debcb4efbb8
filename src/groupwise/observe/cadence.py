"""How often each family of statistics is taken.

A norm of all gradients costs about one percent of a training step on a CPU, a copy of all weights ten times that. So
families have cadences of their own, chosen such that all of them together stay below three percent of a step that takes
a tenth of a second or more (docs/observe.md has the measurements; `budget` has what becomes of shorter ones); a family
is due at the updates that its number divides.

Where several networks take updates in turns, a number that their turns divide would always meet the same one. So there
a family of number n is due once in each window of n updates, mostly n + k after it was due before, and n + k shares no
divisor with any number of turns up to 12: so it meets each in its turn.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, final

from groupwise.errors import RecordError, unknown

DEFAULT: Final[Mapping[str, int]] = {
    "values": 1,
    "gradients": 1,
    "weights": 10,
    "cosines": 10,
    "updates": 20,
    "tasks": 50,
}
"""In how many updates a family is taken; 0 is never."""

_AHEAD: Final = 64
_TURNS: Final = 2 * 3 * 5 * 7 * 11
_SHORT: Final = 7
_WORD: Final = 2**64 - 1


@final
@dataclass(frozen=True)
class Cadence:
    """`every` by family; whether it may be stretched to stay within the budget of time; whether networks take turns."""

    every: Mapping[str, int]
    budgeted: bool = False
    turns: bool = False

    @classmethod
    def of(cls, every: int | Mapping[str, int] | None) -> Cadence:
        """From a factor on all the defaults, or from numbers for some families; from None the defaults, budgeted.

        Raises `RecordError` for others.
        """
        if every is None:
            return cls(DEFAULT, budgeted=True)
        if isinstance(every, int) and not isinstance(every, bool):
            if every < 1:
                raise RecordError(f"every={every}: it has to be 1 or more; to leave a family out give a mapping with 0")
            return cls({family: every * usual for family, usual in DEFAULT.items()})
        if not isinstance(every, Mapping):
            raise RecordError(f"every={every!r} is neither a number nor a mapping of families to numbers")
        for family, number in every.items():
            if family not in DEFAULT:
                raise RecordError(unknown("family of statistics", str(family), DEFAULT))
            if type(number) is not int or number < 0:
                raise RecordError(f"every[{family!r}] is {number!r}: it has to be a number of updates, or 0 for never")
        return cls({**DEFAULT, **every})

    def stretched(self, factor: int) -> Cadence:
        """The same families, each so many times as seldom."""
        return replace(self, every={family: factor * every for family, every in self.every.items()}, budgeted=False)

    def due(self, step: int) -> frozenset[str]:
        """The families that are due at a step."""
        return frozenset(family for family, every in self.every.items() if self._is_due(every, step))

    def _is_due(self, every: int, step: int) -> bool:
        if every < 2:
            return every == 1
        window, place = divmod(step, every)
        return place == (_place(window, every) if self.turns else 0)

    @cached_property
    def _apart(self) -> int:
        """The greatest number that divides all cadences; 0 where no family is ever due."""
        return math.gcd(*self.every.values())

    def rests(self, step: int) -> bool:
        """Whether no family is due at a step, nor cosines at the next, which want these gradients, too."""
        between = not self.due(step) if self.turns else step % self._apart != 0 if self._apart else True
        return between and not self.due_next("cosines", step)

    def next_awake(self, step: int) -> int:
        """The next update from this one on that does not rest, or, where many do, one up to which all do."""
        return next((at for at in range(step, step + _AHEAD) if not self.rests(at)), step + _AHEAD)

    def due_next(self, family: str, step: int) -> bool:
        """Whether a family is due at the step after this one."""
        return self._is_due(self.every[family], step + 1)


@functools.cache
def _moves_on(every: int) -> int:
    """By how many places a family that is due once in each window of `every` updates moves on from one to the next."""
    return next(k for k in itertools.count(1) if math.gcd(every + k, _TURNS) == 1)


def _place(window: int, every: int) -> int:
    """The update of a window of `every` at which a family is due: 0 in the first. A window that is shorter than most
    turns moves on by too much of itself: there it is drawn from the number of the window.
    """
    return window * _moves_on(every) % every if every >= _SHORT else _drawn(window) % every


def _drawn(number: int) -> int:
    """64 bits that look random, of a number: 0 of 0. As `splitmix64` finishes (Steele et al. 2014)."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _WORD
    return number ^ (number >> 31)
