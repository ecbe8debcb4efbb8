"""Errors of other people's code, as ours.

Whose `load_state_dict` is called, and what a damaged file makes torch raise, is anyone's guess; here it is one
kind of error that says what was being done.
"""

from __future__ import annotations

from types import TracebackType

from groupwise.errors import GroupwiseError, StateError


class Refusing:
    """Raises whatever is raised inside as an error of groupwise that begins with `what`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GroupwiseError):
            raise type(error)(f"{self._what}: {error}") from error.__cause__
        if isinstance(error, Exception):
            raise StateError(f"{self._what}: {error or type(error).__name__}") from error
