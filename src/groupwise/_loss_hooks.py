"""Hooks on the losses of tasks, before the one backward that frees their graph.

A method that weights losses takes no task's gradient, and after its backward nobody can. An observer that records the
tasks' shares has its hook called by the balancer first. Hooks are held weakly, and each decides whether the losses
concern it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol
from weakref import WeakSet


class LossHook(Protocol):
    """An object with a hook."""

    def before_backward(self, losses: Mapping[str, Any]) -> None:
        """Takes the losses by task; leaves their graph and every `.grad` as they are."""


_hooks: Final[WeakSet[LossHook]] = WeakSet()


def register(hook: LossHook) -> None:
    """Have a hook called from here on, for as long as somebody else holds it."""
    _hooks.add(hook)


def remove(hook: LossHook) -> None:
    """Have it called no more; a second time does nothing."""
    _hooks.discard(hook)


def call(losses: Mapping[str, Any]) -> None:
    """Call every hook."""
    for hook in list(_hooks) if _hooks else ():
        hook.before_backward(losses)
