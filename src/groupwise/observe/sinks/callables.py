"""A sink that calls a function: `Call(lambda values, step: …)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final


@final
class Call:
    """Hands every record to `function(values, step)`."""

    def __init__(self, function: Callable[[Mapping[str, float], int], object]) -> None:
        self._function = function

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Call the function."""
        self._function(values, step)
