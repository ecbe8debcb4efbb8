"""A number, or a schedule, for each task by name: immutable, hashable, and read for the tasks that are present."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor

from groupwise._pickling import Reduced
from groupwise._spelling import shown
from groupwise.errors import BalanceError, LengthError, ScheduleError, unknown, within
from groupwise.schedules import Schedule, plateaus
from groupwise.schedules.numbers import number


@final
class ByTask(Mapping[str, float | Schedule]):
    """A table from the names of tasks to finite numbers or schedules. Raises `BalanceError` for anything else."""

    def __init__(self, table: Mapping[str, float | Schedule]) -> None:
        if not isinstance(table, Mapping):
            raise BalanceError(f'a table by task is written {{"depth": 1.0}}, not {shown(table)}')
        for task in table:
            if not isinstance(task, str):
                raise BalanceError(f"the name of a task is text, not {shown(task)}")
        self._table = {task: _entry(task, value) for task, value in table.items()}

    def entries(self, what: str, tasks: tuple[str, ...]) -> list[float | Schedule]:
        """The entry of each task. Raises `BalanceError` for a task without one: that is how a misspelt one is found."""
        for task in tasks:
            if task not in self._table:
                raise BalanceError(f"{what}: {unknown('task', task, self._table)}; give every task an entry")
        return [self._table[task] for task in tasks]

    def numbers(self, what: str, tasks: tuple[str, ...]) -> Tensor:
        """[t] float64: the entries of tasks, all of them numbers."""
        return torch.tensor(self.entries(what, tasks), dtype=torch.float64)

    def at(
        self, what: str, tasks: tuple[str, ...], step: int, total_steps: int | None, steps_per_epoch: int | None
    ) -> Tensor:
        """[t] float64: the entries of tasks, schedules evaluated at `step`."""
        entries = zip(tasks, self.entries(what, tasks), strict=True)
        values = [
            _at(f"{what} of task {task!r}", value, (step, total_steps, steps_per_epoch)) for task, value in entries
        ]
        return torch.tensor(values, dtype=torch.float64)

    def __getitem__(self, task: str) -> float | Schedule:
        return self._table[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __hash__(self) -> int:
        return hash(frozenset(self._table.items()))

    def __repr__(self) -> str:
        return repr(self._table)

    def __reduce__(self) -> Reduced:
        return dict, (list(self._table.items()),)  # the plain table, which every method reads


def by_task(table: Mapping[str, float | Schedule]) -> ByTask:
    """`table` itself where it is one already, else read. Raises `BalanceError`."""
    return table if isinstance(table, ByTask) else ByTask(table)


def _entry(task: str, value: object) -> float | Schedule:
    with within(f"task {task!r}"):
        if isinstance(value, Schedule):
            if plateaus(value):
                raise BalanceError(f"{value} follows a metric, which a balancer does not have: give another schedule")
            return value
        try:
            return number(value)
        except ScheduleError as error:
            raise BalanceError(str(error)) from None


def _at(what: str, value: float | Schedule, when: tuple[int, int | None, int | None]) -> float:
    if not isinstance(value, Schedule):
        return value
    try:
        return value.at(*when)
    except LengthError as error:
        raise BalanceError(f"{what}: {error}: pass it to Balancer(…)") from None
