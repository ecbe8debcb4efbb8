"""What stands where a path belongs: a text or a path, or an error that says so, in place of one of `pathlib`'s."""

from __future__ import annotations

import os
from pathlib import Path

from groupwise._spelling import shown
from groupwise.errors import GroupwiseError


def path_of(given: object, error: type[GroupwiseError], what: str) -> Path:
    """`given` as a path. Raises `error` for what is neither text nor a path, or has no bytes in a file system."""
    if not isinstance(given, str | os.PathLike):
        raise error(f"{what} is a path, as 'runs/first', not {shown(given)}")
    try:
        os.fsencode(given)
        return Path(given)
    except (TypeError, ValueError) as problem:  # a path of bytes, a lone surrogate
        raise error(f"{what} is a path, and {shown(given)} is none: {problem}") from problem
