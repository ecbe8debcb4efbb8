"""Values by name, of which those that are kept together stay together.

A method reads and keeps the same tasks at nearly every update, all at once. They stay one tensor, so that to read is to
copy it, whatever the number of tasks; a row is cut out where somebody asks for other tasks, or for the state by name.
Tables are values: to keep something makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

from torch import Tensor

Names = tuple[str, ...]


@final
class TaskTable:
    """A row for each task.

    Args:
        others: rows by task.
        names, block: the tasks that were kept last, and their rows [t, …].
    """

    def __init__(self, others: Mapping[str, Tensor], names: Names = (), block: Tensor | None = None) -> None:
        self._others, self._names, self._block = others, names, block

    def together(self, names: Names) -> Tensor | None:
        """[t, …] the rows of exactly these tasks in this order; None where they were not kept so."""
        return self._block if names == self._names else None

    def rows(self) -> dict[str, Tensor]:
        """Every row, by task."""
        last = () if self._block is None else zip(self._names, self._block.unbind(), strict=True)
        return {**self._others, **dict(last)}

    def kept(self, names: Names, block: Tensor) -> TaskTable:
        """With these rows in the place of what was known of the tasks."""
        if names == self._names:
            return TaskTable(self._others, names, block)
        return TaskTable({task: row for task, row in self.rows().items() if task not in names}, names, block)

    def without(self, *tasks: str) -> TaskTable:
        """Without what is known of these."""
        if not any(task in self for task in tasks):
            return self
        return TaskTable({name: row for name, row in self.rows().items() if name not in tasks})

    def __contains__(self, task: object) -> bool:
        return task in self._names or task in self._others

    def __iter__(self) -> Iterator[str]:
        yield from (*self._others, *self._names)


@final
class PairTable:
    """A number for each ordered pair of tasks.

    Args:
        others: numbers by first and second task.
        names, block: the tasks that were kept last, and the numbers [t, t] of their pairs.
    """

    def __init__(
        self, others: Mapping[str, Mapping[str, Tensor]], names: Names = (), block: Tensor | None = None
    ) -> None:
        self._others, self._names, self._block = others, names, block

    def together(self, names: Names) -> Tensor | None:
        """[t, t] the numbers of exactly these tasks in this order; None where they were not kept so."""
        return self._block if names == self._names else None

    def rows(self) -> dict[str, dict[str, Tensor]]:
        """Every number, by first and second task."""
        found = {first: dict(row) for first, row in self._others.items()}
        for first, row in () if self._block is None else zip(self._names, self._block, strict=True):
            found.setdefault(first, {}).update(zip(self._names, row.unbind(), strict=True))
        return found

    def kept(self, names: Names, block: Tensor) -> PairTable:
        """With these numbers in the place of what was known of the pairs."""
        return PairTable(self._others if names == self._names else self.rows(), names, block)

    def without(self, task: str) -> PairTable:
        """Without any pair that the task is in."""
        rows = self.rows().items()
        return PairTable(
            {
                first: {second: value for second, value in row.items() if second != task}
                for first, row in rows
                if first != task
            }
        )

    def __iter__(self) -> Iterator[str]:
        yield from (*self._others, *(name for name in self._names if name not in self._others))
