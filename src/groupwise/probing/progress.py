"""A bar over the updates that the budget allows, on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@final
class Progress:
    """Shown, or silent."""

    def __init__(self, shown: bool) -> None:
        columns = TextColumn("probing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self._bar = Bar(*columns, console=Console(file=sys.stderr), transient=True, disable=not shown)
        self._task: TaskID | None = None

    def begin(self, updates: float) -> None:
        """How many updates there are to make."""
        self._task = self._bar.add_task("probing", total=updates)

    def at(self, updates: float) -> None:
        """How many are made."""
        if self._task is not None:
            self._bar.update(self._task, completed=updates)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
