"""Who looks at the losses of tasks before the one backward that frees their graph.

A method that weights losses takes no task's gradient, and after its backward nobody can. Whoever records shares, an
observer, looks first; a balancer shows the losses to whoever does. Both are known here only as what they do. Those who
look are held weakly, and each decides whether a loss is its concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol
from weakref import WeakSet


class Looks(Protocol):
    """Somebody who looks at losses."""

    def see_losses(self, losses: Mapping[str, Any]) -> None:
        """Look at the losses by task; the graph and every `.grad` stay as they are."""


_who: Final[WeakSet[Looks]] = WeakSet()


def look(who: Looks) -> None:
    """Have losses shown from here on, for as long as somebody else holds `who`."""
    _who.add(who)


def look_no_more(who: Looks) -> None:
    """Have none shown; a second time does nothing."""
    _who.discard(who)


def show(losses: Mapping[str, Any]) -> None:
    """Show losses to everybody who looks."""
    for who in list(_who):
        who.see_losses(losses)
