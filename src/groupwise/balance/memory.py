"""What a method remembers, by name.

A value belongs to a task, to an ordered pair of tasks, or to the whole run. A method reads the rows of the tasks that
are present and keeps them again; the rows of the others wait untouched. So a task may miss a batch, join or leave, and
a method cannot get this wrong. All of it is plain tensors: `state_dict` is what a `weights_only` load takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from groupwise.errors import BalanceError, StateError

_SEED = 0


@final
class Memory:
    """State by name. `start` is what a task without a past begins with.

    Args:
        seed: of the generator that a method draws from; drawing never touches torch's global generator.
    """

    def __init__(self, seed: int = _SEED) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self._tasks: dict[str, dict[str, Tensor]] = {}
        self._pairs: dict[str, dict[str, dict[str, Tensor]]] = {}
        self._run: dict[str, Tensor] = {}
        self._parts: dict[str, Memory] = {}

    def of_tasks(self, key: str, tasks: Sequence[str], start: float | Tensor) -> Tensor:
        """The values of some tasks, stacked: [t] where `start` is a number, [t, …] where it is a tensor.

        They come in the dtype and on the device of `start`. Raises `BalanceError` where their shape is another.
        """
        known, first = self._tasks.get(key, {}), _tensor(start)
        rows = [known.get(task, first) for task in tasks]
        for task, row in zip(tasks, rows, strict=True):
            if row.shape != first.shape:
                raise BalanceError(
                    f"what is known of task {task!r} ({key}) has the shape {list(row.shape)}, and this update asks for "
                    f"{list(first.shape)}: it is of other shared parameters (name them, Balancer(parameters=…)) or of "
                    f"another method"
                )
        alike = all(row.dtype == first.dtype and row.device == first.device for row in rows)
        return torch.stack(rows if alike else [row.to(first) for row in rows])

    def keep_tasks(self, key: str, tasks: Sequence[str], values: Tensor) -> None:
        """Keep one row of `values` for each task."""
        rows = values.detach().clone().unbind()
        self._tasks.setdefault(key, {}).update(zip(tasks, rows, strict=True))

    def has_tasks(self, key: str, tasks: Sequence[str]) -> Tensor:
        """[t] bool: which of the tasks have a past under `key`."""
        known = self._tasks.get(key, {})
        return torch.tensor([task in known for task in tasks])

    def of_pairs(self, key: str, tasks: Sequence[str], start: float) -> Tensor:
        """[t, t] values of the ordered pairs of some tasks."""
        known, first = self._pairs.get(key, {}), _tensor(start)
        if not known:
            return first.repeat(len(tasks), len(tasks))
        rows = (known.get(a, {}) for a in tasks)
        return torch.stack([row.get(b, first) for row in rows for b in tasks]).view(len(tasks), len(tasks))

    def keep_pairs(self, key: str, tasks: Sequence[str], values: Tensor) -> None:
        """Keep [t, t] values."""
        kept = self._pairs.setdefault(key, {})
        for a, row in zip(tasks, values.detach().clone(), strict=True):
            kept.setdefault(a, {}).update(zip(tasks, row.unbind(), strict=True))

    def of_run(self, key: str, start: float | Tensor) -> Tensor:
        """A value of the whole run."""
        return self._run.get(key, _tensor(start))

    def keep_run(self, key: str, value: float | Tensor) -> None:
        """Keep a value of the whole run."""
        self._run[key] = _tensor(value).detach().clone()

    def part(self, name: str) -> Memory:
        """The memory of a method inside this one (`Smoothed(CAGrad())`); it draws from the same generator."""
        if name not in self._parts:
            self._parts[name] = Memory()
            self._parts[name].generator = self.generator
        return self._parts[name]

    def forget(self, task: str) -> None:
        """Drop all that is known of a task, as if it had never been."""
        for known in self._tasks.values():
            known.pop(task, None)
        for pairs in self._pairs.values():
            pairs.pop(task, None)
            for row in pairs.values():
                row.pop(task, None)
        for part in self._parts.values():
            part.forget(task)

    def tasks(self) -> set[str]:
        """Every task of which something is known."""
        own = {task for known in self._tasks.values() for task in known} | {a for p in self._pairs.values() for a in p}
        return own.union(*(part.tasks() for part in self._parts.values()))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain dicts of tensors."""
        return {"generator": self.generator.get_state(), **self._values()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises `StateError` for anything else, having changed nothing."""
        if not isinstance(state, Mapping) or set(state) != {"generator", "tasks", "pairs", "run", "parts"}:
            raise StateError("this is not the state of a balancing method")
        self.generator.set_state(state["generator"])
        self._take(state)

    def _values(self) -> dict[str, Any]:
        parts = {name: part._values() for name, part in self._parts.items()}
        return {
            "tasks": {key: dict(known) for key, known in self._tasks.items()},
            "pairs": {key: {a: dict(row) for a, row in rows.items()} for key, rows in self._pairs.items()},
            "run": dict(self._run),
            "parts": parts,
        }

    def _take(self, state: Mapping[str, Any]) -> None:
        self._tasks = {key: dict(known) for key, known in state["tasks"].items()}
        self._pairs = {key: {a: dict(row) for a, row in rows.items()} for key, rows in state["pairs"].items()}
        self._run = dict(state["run"])
        self._parts = {}
        for name, inner in state["parts"].items():
            self.part(name)._take(inner)

    def __iter__(self) -> Iterator[str]:
        yield from (*self._tasks, *self._pairs, *self._run)


def _tensor(value: float | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
