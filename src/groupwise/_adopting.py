"""Where `Plan.from_optimizer` gets its reader from.

Reading a program needs torch, which plans do without. So the reader stands above, and the package's face, which sees
every floor, hands it in as a function that imports it when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class HasRules(Protocol):
    """A plan, as its reader makes one."""

    @property
    def rules(self) -> tuple[Any, ...]:
        """Its rules, as `Plan` takes them."""


class Found(Protocol):
    """A program as a plan, and what could not be carried over."""

    @property
    def plan(self) -> HasRules:
        """The plan."""

    @property
    def lost(self) -> Sequence[str]:
        """A sentence for each thing that is missing."""


Reader = Callable[[Any, Any, Any, str, Any], Found]
_readers: list[Reader] = []


def hand_in(reader: Reader) -> None:
    """Make `reader` the one that is used."""
    _readers[:] = [reader]


def read(model: Any, optimizer: Any, schedulers: Any, schedulers_step: str, example: Any) -> Found:
    """What the reader makes of a program; the arguments are those of `groupwise.adopt.adopt`."""
    return _readers[0](model, optimizer, schedulers, schedulers_step, example)
