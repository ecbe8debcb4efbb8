"""What a method remembers, by name.

A value belongs to a task, to an ordered pair of tasks, or to the whole run. A method reads the rows of the tasks that
are present and keeps them again; the rows of the others wait untouched. So a task may miss a batch, join or leave, and
a method cannot get this wrong. All of it is plain tensors: `state_dict` is what a `weights_only` load takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, final

import torch
from torch import Tensor

from groupwise.balance.tables import PairTable, TaskTable
from groupwise.errors import BalanceError, StateError

_SEED = 0
_DEEPEST = 16
"""Methods inside methods; a state that is nested deeper is no method's."""


class Columns(Protocol):
    """Which parameters the columns of a Jacobian belong to (a `MethodContext`)."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """A label for each, that differs from the others' and changes with its shape."""

    @property
    def splits(self) -> tuple[int, ...]:
        """The number of entries of each."""


@final
class Memory:
    """State by name. `start` is what a task without a past begins with.

    The tensors in it are never changed in place, so a `copy` is cheap.

    Args:
        seed: of the generator that a method draws from; drawing never touches torch's global generator.
    """

    def __init__(self, seed: int = _SEED) -> None:
        self._source = _Source(torch.Generator().manual_seed(seed))
        self._tasks: dict[str, TaskTable] = {}
        self._rows: dict[str, dict[str, dict[str, Tensor]]] = {}
        self._pairs: dict[str, PairTable] = {}
        self._run: dict[str, Tensor] = {}
        self._parts: dict[str, Memory] = {}

    @property
    def generator(self) -> torch.Generator:
        """What a method draws from."""
        return self._source.own()

    def of_tasks(self, key: str, tasks: Sequence[str], start: float | Tensor) -> Tensor:
        """The values of some tasks, stacked: [t] where `start` is a number, [t, …] where it is a tensor.

        They come in the dtype and on the device of `start`. Raises `BalanceError` where their shape is another.
        """
        table = self._tasks.get(key)
        together = None if table is None else table.together(tuple(tasks))
        if together is not None and _fits(together, start):
            return together.clone()
        first = _tensor(start)
        if table is None:
            return first.expand(len(tasks), *first.shape).clone()
        known = table.rows()
        rows = [known.get(task, first) for task in tasks]
        for task, row in zip(tasks, rows, strict=True):
            if row.shape != first.shape:
                raise BalanceError(_other_shape(key, task, list(row.shape), list(first.shape)))
        alike = all(row.dtype == first.dtype and row.device == first.device for row in rows)
        return torch.stack(rows if alike else [row.to(first) for row in rows])

    def of_rows(self, key: str, tasks: Sequence[str], columns: Columns, like: Tensor) -> Tensor:
        """[t, n] what is known of each task, parameter by parameter; 0 for a parameter without a past.

        With [n] entries in `like` there is one for each column; with [p], one for each parameter. They come in its
        dtype and on its device. A parameter that was frozen for a while finds what was kept, one that is new or has
        got another shape starts afresh, and neither disturbs the others.
        """
        sizes = _sizes(columns, like)
        labels, known = _labels(columns), self._rows.get(key, {})
        none: dict[str, Tensor] = {}
        pieces: list[Tensor] = []
        for task in tasks:
            row = self._unsplit(key, task, labels, sizes) if task not in known else known[task]
            for label, size in zip(labels, sizes, strict=True):
                piece = row.get(label)
                if piece is None:
                    piece = none.setdefault(label, like.new_zeros(size))
                elif piece.numel() != size:
                    raise BalanceError(_other_shape(key, task, [piece.numel()], [size]))
                pieces.append(piece if piece.dtype == like.dtype and piece.device == like.device else piece.to(like))
        joined = torch.cat(pieces) if pieces else like.new_zeros(0)
        return joined.view(len(tasks), like.numel())

    def keep_rows(self, key: str, tasks: Sequence[str], columns: Columns, values: Tensor) -> None:
        """Keep [t, n] or [t, p] values, as `of_rows` gives them; what is known of other parameters stays."""
        sizes, labels = _sizes(columns, values[0]), _labels(columns)
        present, names = set(labels), {_name(label) for label in labels}
        kept = self._rows.get(key, {})
        fresh = {}
        for task, row in zip(tasks, values.detach(), strict=True):
            waiting = {
                label: piece.clone() if piece.nbytes < piece.untyped_storage().nbytes() else piece
                for label, piece in kept.get(task, {}).items()
                if label not in present and _name(label) not in names
            }
            fresh[task] = {**waiting, **dict(zip(labels, row.clone().split_with_sizes(list(sizes)), strict=True))}
        self._rows[key] = {**kept, **fresh}
        self._forget_unsplit(key, tasks)

    @property
    def has_rows(self) -> bool:
        """Whether anything is known by parameter."""
        return any(self._rows.values()) or any(part.has_rows for part in self._parts.values())

    def keep_tasks(self, key: str, tasks: Sequence[str], values: Tensor) -> None:
        """Keep one row of `values` for each task."""
        names, block = tuple(tasks), values.detach().clone()
        if len(names) != len(block):
            raise BalanceError(f"{len(block)} rows were to be kept ({key}) for {len(names)} tasks")
        self._tasks[key] = self._tasks.get(key, _NO_TASKS).kept(names, block)

    def has_tasks(self, key: str, tasks: Sequence[str]) -> Tensor:
        """[t] bool: which of the tasks have a past under `key`."""
        known = self.tasks_with(key)
        return torch.tensor([task in known for task in tasks])

    def tasks_with(self, key: str) -> frozenset[str]:
        """The tasks that have a past under `key`."""
        return frozenset(self._tasks.get(key, _NO_TASKS))

    def of_pairs(self, key: str, tasks: Sequence[str], start: float) -> Tensor:
        """[t, t] values of the ordered pairs of some tasks."""
        table = self._pairs.get(key)
        together = None if table is None else table.together(tuple(tasks))
        if together is not None:
            return together.clone()
        first = _tensor(start)
        if table is None:
            return first.repeat(len(tasks), len(tasks))
        known = table.rows()
        rows = (known.get(a, {}) for a in tasks)
        return torch.stack([row.get(b, first) for row in rows for b in tasks]).view(len(tasks), len(tasks))

    def keep_pairs(self, key: str, tasks: Sequence[str], values: Tensor) -> None:
        """Keep [t, t] values."""
        names, block = tuple(tasks), values.detach().clone()
        if block.shape != (len(names), len(names)):
            shape = list(block.shape)
            raise BalanceError(f"{shape} values were to be kept ({key}) for the pairs of {len(names)} tasks")
        self._pairs[key] = self._pairs.get(key, _NO_PAIRS).kept(names, block)

    def of_run(self, key: str, start: float | Tensor) -> Tensor:
        """A value of the whole run."""
        return self._run[key].clone() if key in self._run else _tensor(start)

    def keep_run(self, key: str, value: float | Tensor) -> None:
        """Keep a value of the whole run."""
        self._run[key] = _tensor(value).detach().clone()

    def part(self, name: str) -> Memory:
        """The memory of a method inside this one (`Smoothed(CAGrad())`); it draws from the same generator."""
        if name not in self._parts:
            self._parts[name] = _sharing(self._source)
        return self._parts[name]

    def forget(self, task: str) -> None:
        """Drop all that is known of a task, as if it had never been."""
        for known in self._rows.values():
            known.pop(task, None)
        self._tasks = {key: table.without(task) for key, table in self._tasks.items()}
        self._pairs = {key: table.without(task) for key, table in self._pairs.items()}
        for part in self._parts.values():
            part.forget(task)

    def tasks(self) -> set[str]:
        """Every task of which something is known."""
        tables: list[Iterable[str]] = [*self._tasks.values(), *self._rows.values(), *self._pairs.values()]
        own = {task for known in tables for task in known}
        return own.union(*(part.tasks() for part in self._parts.values()))

    def copy(self) -> Memory:
        """One that goes its own way from here, its generator too."""
        return self._drawing_from(self._source.copy())

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain dicts of tensors."""
        return {"generator": self._source.generator.get_state(), **self._values()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises `StateError` for anything else, having changed nothing."""
        if not isinstance(state, Mapping) or "generator" not in state:
            raise StateError("this is not the state of a balancing method")
        values = _checked({key: value for key, value in state.items() if key != "generator"})
        generator = torch.Generator()
        try:
            generator.set_state(state["generator"])
        except (RuntimeError, TypeError) as error:
            raise StateError(f"this is not the state of a generator: {error}") from error
        fresh = _sharing(self._source)
        fresh._take(values)
        self.__dict__.update(fresh.__dict__)
        self.generator.set_state(generator.get_state())

    def _drawing_from(self, source: _Source) -> Memory:
        found = _sharing(source)
        if self._tasks or self._rows or self._pairs or self._run:
            found._tasks, found._rows = self._tasks.copy(), _copied(self._rows)
            found._pairs, found._run = self._pairs.copy(), self._run.copy()
        if self._parts:
            found._parts = {name: part._drawing_from(source) for name, part in self._parts.items()}
        return found

    def _values(self) -> dict[str, Any]:
        tables: dict[str, Mapping[str, Any]] = {
            "tasks": {key: table.rows() for key, table in self._tasks.items()},
            "rows": _copied(self._rows),
            "pairs": {key: table.rows() for key, table in self._pairs.items()},
            "run": self._run.copy(),
        }
        return {**tables, "parts": {name: part._values() for name, part in self._parts.items()}}

    def _take(self, values: Mapping[str, Any]) -> None:
        self._tasks = {key: TaskTable(_copied(rows)) for key, rows in values["tasks"].items()}
        self._pairs = {key: PairTable(_copied(rows)) for key, rows in values["pairs"].items()}
        self._rows, self._run = _copied(values.get("rows", {})), _copied(values["run"])
        self._parts = {}
        for name, inner in values["parts"].items():
            self.part(name)._take(inner)

    def _unsplit(self, key: str, task: str, labels: Sequence[str], sizes: Sequence[int]) -> dict[str, Tensor]:
        """What an older state keeps as one vector of all parameters, cut as the parameters stand now."""
        if task not in self._tasks.get(key, _NO_TASKS):
            return {}
        whole = self._tasks[key].rows()[task]
        if whole.numel() != sum(sizes):
            raise BalanceError(_other_shape(key, task, list(whole.shape), [sum(sizes)]))
        return dict(zip(labels, whole.split_with_sizes(list(sizes)), strict=True))

    def _forget_unsplit(self, key: str, tasks: Sequence[str]) -> None:
        if key in self._tasks:
            self._tasks[key] = self._tasks[key].without(*tasks)
            if not any(self._tasks[key]):
                del self._tasks[key]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._tasks, *self._rows, *self._pairs, *self._run)


@final
class _Source:
    """A generator for a memory and its parts. Copies have it together until one of them is asked for it, so a copy
    that draws nothing costs no generator.
    """

    def __init__(self, generator: torch.Generator, shared: bool = False) -> None:
        self.generator = generator
        self._shared = shared

    def own(self) -> torch.Generator:
        """The generator, which no copy has any more."""
        if self._shared:
            state = self.generator.get_state()
            self.generator, self._shared = torch.Generator(), False
            self.generator.set_state(state)
        return self.generator

    def copy(self) -> _Source:
        """One that goes its own way from here."""
        self._shared = True
        return _Source(self.generator, shared=True)


def _sharing(source: _Source) -> Memory:
    """An empty memory that draws from a source."""
    found = object.__new__(Memory)
    found._source = source
    found._tasks, found._rows, found._pairs, found._run, found._parts = {}, {}, {}, {}, {}
    return found


_NO_TASKS, _NO_PAIRS = TaskTable({}), PairTable({})


def _fits(rows: Tensor, start: float | Tensor) -> bool:
    """Whether rows are of the shape, dtype and device of what a task without a past begins with."""
    if isinstance(start, Tensor):
        return rows.shape[1:] == start.shape and rows.dtype == start.dtype and rows.device == start.device
    return rows.dim() == 1 and rows.dtype == torch.float64 and rows.is_cpu


def _tensor(value: float | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _sizes(columns: Columns, like: Tensor) -> tuple[int, ...]:
    by_entry = like.numel() == sum(columns.splits)
    return columns.splits if by_entry else (1,) * len(columns.splits)


def _labels(columns: Columns) -> tuple[str, ...]:
    return columns.parameters or tuple(str(i) for i in range(len(columns.splits)))


def _name(label: str) -> str:
    """Of a parameter, whatever its shape."""
    return label.partition("|")[0]


def _copied(value: Any) -> Any:
    """Tables of tables, with the same tensors."""
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def _other_shape(key: str, task: str, known: list[int], wanted: list[int]) -> str:
    return (
        f"what is known of task {task!r} ({key}) has the shape {known}, and this update asks for {wanted}: it is of "
        "other shared parameters (name them, Balancer(parameters=…)) or of another method"
    )


def _checked(values: object, depth: int = 0) -> Mapping[str, Any]:
    """The values of a memory. Raises `StateError` for what is none."""
    keys = {"tasks", "pairs", "run", "parts"}
    if not isinstance(values, Mapping) or set(values) | {"rows"} != keys | {"rows"} or depth > _DEEPEST:
        raise StateError("this is not the state of a balancing method")
    levels = {"run": 1, "tasks": 2, "rows": 3, "pairs": 3}
    for key, level in levels.items():
        if not _is_table(values.get(key, {}), level):
            raise StateError(f"this is not the state of a balancing method: its {key!r} are not tensors by name")
    if not isinstance(values["parts"], Mapping) or not all(isinstance(name, str) for name in values["parts"]):
        raise StateError("this is not the state of a balancing method: its 'parts' are not states by name")
    for inner in values["parts"].values():
        _checked(inner, depth + 1)
    return values


def _is_table(value: object, levels: int) -> bool:
    """Whether it is tensors by name, that many levels deep."""
    if not levels:
        return isinstance(value, Tensor)
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(name, str) and _is_table(inner, levels - 1) for name, inner in value.items())
