"""What one balanced backward did, in numbers and in words."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import combinations
from typing import final

import torch
from torch import Tensor

from groupwise._pickling import Public, Reduced
from groupwise._spelling import number

_NEARLY = 1e-9  # relative: below it an inner product is zero to the solvers' accuracy


@final
@dataclass(frozen=True, eq=False, repr=False)
class BalanceResult:
    """What `Balancer.backward` did. Every number is of the whole update, unscaled; pairs come in the order of `tasks`.

    Attributes:
        tasks: the tasks that took part, in the order given.
        losses: by task, also of those that were skipped.
        weights: by task; empty for a Jacobian method, whose update is no weighted sum.
        norms: the norm of each task's gradient of what the method looked at; empty where the route looks at none.
        cosines: of each pair of these gradients; nan where one is zero.
        conflicting: the tasks whose loss the update of the shared parameters raises, to first order.
        skipped: the tasks that were left out because something was not finite, and what.
        route: what was done, at what cost, and what is exact about it.
        loss: the sum of weights times losses; of the losses alone where there are no weights.
        shared: the shared parameters, where the route has their rows; they are the columns of `shares`.
    """

    tasks: tuple[str, ...]
    losses: Mapping[str, float]
    weights: Mapping[str, float]
    norms: Mapping[str, float]
    cosines: Mapping[tuple[str, str], float]
    conflicting: tuple[str, ...]
    skipped: Mapping[str, str]
    route: str
    loss: float
    shared: tuple[Tensor, ...] = ()
    _shares: Callable[[], Tensor | None] = field(default=lambda: None, repr=False)

    @property
    def conflicts(self) -> tuple[tuple[str, str], ...]:
        """The pairs whose gradients have a negative inner product."""
        return tuple(pair for pair, cosine in self.cosines.items() if cosine < 0)

    @property
    def shares(self) -> Tensor | None:
        """[t, p] float32 on the device: the norm of each task's gradient of each of `shared`; None without rows.

        Computed when it is asked for, from rows that the next backward overwrites; it is None from then on.
        """
        return self._shares()

    def __reduce__(self) -> tuple[Public, tuple[()]]:
        """The numbers and the words; the tensors of `shared` and `shares` are not pickled along."""
        kept = (part.name for part in fields(self) if part.name not in ("shared", "_shares"))
        return Public("groupwise.balance:BalanceResult", {name: getattr(self, name) for name in kept}), ()

    def __repr__(self) -> str:
        shown = {"weights": dict(self.weights), "conflicting": self.conflicting, "skipped": dict(self.skipped)}
        given = "".join(f", {name}={value}" for name, value in shown.items() if value)
        return f"BalanceResult(tasks={self.tasks}, loss={number(self.loss)}{given})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        width = max((len(task) for task in self.losses), default=0)
        lines = [f"{'task':<{width}}  {'loss':>9}  {'weight':>9}  {'norm':>9}"]
        for task, loss in self.losses.items():
            cells = [_cell(loss), _cell(self.weights.get(task)), _cell(self.norms.get(task))]
            notes = [f"skipped: {self.skipped[task]}"] if task in self.skipped else []
            notes += ["conflicting"] if task in self.conflicting else []
            lines.append("  ".join([f"{task:<{width}}", *(f"{cell:>9}" for cell in cells), *notes]).rstrip())
        if self.conflicts:
            lines.append(
                "in conflict: " + ", ".join(f"{a} - {b} (cosine {self.cosines[a, b]:.2f})" for a, b in self.conflicts)
            )
        return "\n".join([*lines, self.route])


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


@final
class Cosines(Mapping[tuple[str, str], float]):
    """Of every pair, within [-1, 1], computed when one is asked for.

    Args:
        tasks: the names.
        gramian: [t, t] of their gradients.
    """

    def __init__(self, tasks: tuple[str, ...], gramian: Tensor) -> None:
        self._tasks, self._gramian = tasks, gramian

    @cached_property
    def _found(self) -> dict[tuple[str, str], float]:
        norms = norms_of(self._gramian)
        table = (self._gramian / norms[:, None] / norms).clamp(-1, 1).tolist()
        pairs = combinations(enumerate(self._tasks), 2)
        return {(a, b): table[i][j] for (i, a), (j, b) in pairs}

    def __getitem__(self, pair: tuple[str, str]) -> float:
        return self._found[pair]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return combinations(self._tasks, 2)

    def __len__(self) -> int:
        return len(self._tasks) * (len(self._tasks) - 1) // 2

    def __repr__(self) -> str:
        return repr(self._found)

    def __reduce__(self) -> Reduced:
        return dict, (list(self._found.items()),)


def norms_of(gramian: Tensor) -> Tensor:
    """[t] from a Gramian [t, t]."""
    return gramian.diagonal().clamp(min=0).sqrt()


def conflicting_tasks(
    tasks: tuple[str, ...], products: Tensor, norms: Tensor, length: float | Tensor
) -> tuple[str, ...]:
    """The tasks whose gradient has a negative inner product [t] `products` with an update of that length."""
    bad = products < -_NEARLY * norms * torch.as_tensor(length)
    return tuple(task for task, is_bad in zip(tasks, bad.tolist(), strict=True) if is_bad)
