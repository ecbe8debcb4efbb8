"""Warnings that point at the caller's line.

How many frames lie between a mistake and the line of the program that made it differs by trainer, hook and backend. So
they are counted anew for each warning, and what Python shows beside it is the first line outside of this package and of
the frameworks that call it.
"""

from __future__ import annotations

import sys
import warnings
from typing import Final

from groupwise.errors import GroupwiseWarning

FRAMEWORKS: Final = frozenset(
    ("groupwise", "torch", "keras", "tensorflow", "jax", "lightning", "pytorch_lightning", "accelerate")
    + ("transformers", "contextlib", "functools")
)


def warn(message: str) -> None:
    """Warn with a `GroupwiseWarning` at the line of the program that led here."""
    warnings.warn(message, GroupwiseWarning, stacklevel=_level())


def _level() -> int:
    """The `stacklevel` for the caller of `warn`'s caller; the outermost frame, where all are of frameworks."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and _package(frame.f_globals) in FRAMEWORKS:
        level, frame = level + 1, frame.f_back
    return level


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
