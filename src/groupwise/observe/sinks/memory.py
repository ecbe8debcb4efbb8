"""A sink that remembers the last records."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import final


@final
class Memory:
    """The last `size` records, oldest first, at `records`: pairs of a step and its numbers."""

    def __init__(self, size: int = 1000) -> None:
        self.records: deque[tuple[int, dict[str, float]]] = deque(maxlen=size)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Remember a record."""
        self.records.append((step, dict(values)))
