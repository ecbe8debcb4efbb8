"""A part of a run: what can be captured, checked against a file, applied and undone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

Undo: TypeAlias = Callable[[], None]


class Part(ABC):
    """One object whose state goes into a checkpoint."""

    @abstractmethod
    def capture(self) -> Any:
        """Its state; `plain` makes plain data of it."""

    @abstractmethod
    def check(self, saved: Any) -> None:
        """Raise `StateError` if `saved` is certain not to fit. Nothing changes."""

    @abstractmethod
    def snapshot(self) -> Undo:
        """What brings it back to where it is now, after an `apply` that failed, or was followed by a failure."""

    @abstractmethod
    def apply(self, saved: Any) -> bool:
        """Take over `saved`; False if there was a reason not to."""
