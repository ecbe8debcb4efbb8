"""Errors of other people's code, as ours.

Whose `load_state_dict` is called, and what a damaged file makes torch raise, is anyone's guess; here it is one
kind of error that says what was being done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from groupwise.errors import GroupwiseError, StateError


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raise whatever is raised inside as an error of groupwise that begins with `what`."""
    try:
        yield
    except GroupwiseError as error:
        raise type(error)(f"{what}: {error}") from error.__cause__
    except Exception as error:
        raise StateError(f"{what}: {error or type(error).__name__}") from error
