"""A schedule written as the expression that builds it, in two hands.

`str` is compact, for tables: `cosine(3e-4, warmup=5%)`. `repr` is exact, and Python reads it back:
`cosine(0.0003, warmup='5%')`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

from groupwise._spelling import number
from groupwise.schedules.lengths import Length


class Expression(ABC):
    """What can be written as an expression."""

    @abstractmethod
    def expression(self, write: Callable[[object], str]) -> str:
        """The expression, its arguments written by `write`."""

    @final
    def __str__(self) -> str:
        return self.expression(compact)

    @final
    def __repr__(self) -> str:
        return self.expression(exact)


def compact(value: object) -> str:
    """An argument as a table shows it: `3e-4`, `5%`."""
    return number(value, 6) if isinstance(value, float) else _nested(value, compact, str)


def exact(value: object) -> str:
    """An argument as Python reads it back: `0.0003`, `'5%'`."""
    return repr(str(value)) if isinstance(value, Length) else _nested(value, exact, repr)


def _nested(value: object, write: Callable[[object], str], otherwise: Callable[[object], str]) -> str:
    if isinstance(value, Expression):
        return value.expression(write)
    if isinstance(value, tuple):
        return f"[{', '.join(write(item) for item in value)}]"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return otherwise(value)
