"""What a run of the plan as it is shows: norms, updates and clipping by group and by layer, tasks beside one another.

The observer measures (`groupwise.observe`); here its records of one run are kept, and their medians taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, final

from torch import Tensor

from groupwise.observe import Observer
from groupwise.optim import GroupedOptimizer
from groupwise.records import Step

_EVERY: Final = {"gradients": 1, "weights": 1, "updates": 1, "cosines": 1, "tasks": 2}
_SETTLED: Final = 5
"""One part in so many of the first records is left out of medians: a warmup is not the run."""


@final
@dataclass(frozen=True)
class Part:
    """What was seen of a group or a layer: medians over updates.

    Attributes:
        grad_norm: the 2-norm of its gradient, before clipping.
        update_ratio: |update| / |weights| of an update.
        clip_factor: what clipping left of its gradient, 1 for all; None where nothing clips.
        zero: the share of its gradient's entries that are 0.
        share: its part of the square of the joint norm of all gradients.
    """

    name: str
    grad_norm: float
    update_ratio: float
    clip_factor: float | None
    zero: float
    share: float


@final
@dataclass(frozen=True)
class Task:
    """What was seen of a task.

    Attributes:
        loss: before the first update.
        norm: the median 2-norm of the gradient of its loss.
        share: its part of the sum of all tasks' norms.
        shares: by group, the same within it.
    """

    name: str
    loss: float
    norm: float
    share: float
    shares: Mapping[str, float]


@final
@dataclass(frozen=True)
class Seen:
    """All that was seen of the plan as it is.

    Attributes:
        groups, layers: in the order of the optimizer and of the model.
        norms: the joint norm of all gradients before each update.
        tasks: where there are several.
        cosines: of each pair of tasks, over updates: the median, and the share of the updates below 0.
        lowest: the lowest loss of a task that was seen, by task.
    """

    groups: tuple[Part, ...] = ()
    layers: tuple[Part, ...] = ()
    norms: tuple[float, ...] = ()
    tasks: tuple[Task, ...] = ()
    cosines: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    lowest: Mapping[str, float] = field(default_factory=dict)

    def norm_percentile(self, share: float) -> float:
        """A percentile of the joint norm, the first fifth of the updates left out."""
        ordered = sorted(_settled(self.norms))
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


@final
class Recording:
    """Keeps the observers' records of a run: a `Watch`."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._steps: tuple[list[Step], list[Step]] = [], []
        self._first: dict[str, float] = {}
        self._lowest: dict[str, float] = {}

    def begin(self, optimizer: GroupedOptimizer, model: Any) -> None:
        """Observers by group and by layer."""
        layers = Observer(optimizer, None, _EVERY, by="layer", model=model)
        self._observers = [Observer(optimizer, None, _EVERY), layers]

    def before(self, losses: Mapping[str, Tensor]) -> None:
        """The record of the update before, and the tasks of this one."""
        self._collect()
        values = {task: float(loss.detach()) for task, loss in losses.items()}
        self._first = self._first or values
        self._lowest = {task: min(value, self._lowest.get(task, value)) for task, value in values.items()}
        if len(losses) > 1 and all(loss.requires_grad and math.isfinite(values[t]) for t, loss in losses.items()):
            self._observers[0].tasks(losses)

    def end(self) -> None:
        """The last record; the hooks go."""
        self._collect()
        for observer in self._observers:
            observer.close()

    def _collect(self) -> None:
        for observer, steps in zip(self._observers, self._steps, strict=True):
            if observer.last is not None and (not steps or steps[-1].step != observer.last.step):
                steps.append(observer.last)

    def seen(self) -> Seen:
        """What it comes to."""
        groups, layers = self._steps
        norms = [math.sqrt(sum(_number(group, "grad_norm") ** 2 for group in step.groups.values())) for step in groups]
        tasks = tuple(_task(task, loss, groups) for task, loss in self._first.items()) if len(self._first) > 1 else ()
        whole = sum(task.norm for task in tasks) or 1.0
        return Seen(
            _parts(groups),
            _parts(layers),
            tuple(norms),
            tuple(Task(t.name, t.loss, t.norm, t.norm / whole, t.shares) for t in tasks),
            _cosines(groups),
            self._lowest,
        )


def _settled(values: Sequence[float]) -> Sequence[float]:
    return values[len(values) // _SETTLED :]


def _number(numbers: Mapping[str, float], name: str) -> float:
    value = numbers.get(name, 0.0)
    return value if math.isfinite(value) else 0.0


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return median(_settled(known)) if known else math.nan


def _parts(steps: Sequence[Step]) -> tuple[Part, ...]:
    names = dict.fromkeys(name for step in steps for name in step.groups)
    norms = {name: _median(_series(steps, name, "grad_norm")) for name in names}
    whole = sum(norm**2 for norm in norms.values() if math.isfinite(norm)) or 1.0
    return tuple(_part(steps, name, norms[name], norms[name] ** 2 / whole) for name in names)


def _part(steps: Sequence[Step], name: str, norm: float, share: float) -> Part:
    factors = list(_series(steps, name, "clip_factor"))
    return Part(
        name,
        norm,
        _median(_series(steps, name, "update_ratio")),
        _median(factors) if factors else None,
        _median(_series(steps, name, "zero")),
        share,
    )


def _series(steps: Sequence[Step], name: str, statistic: str) -> Iterable[float]:
    return (step.groups[name][statistic] for step in steps if statistic in step.groups.get(name, {}))


def _task(task: str, loss: float, steps: Sequence[Step]) -> Task:
    norms = (step.tasks[task]["norm"] for step in steps if "norm" in step.tasks.get(task, {}))
    groups = dict.fromkeys(group for step in steps for group in step.shares.get(task, {}))
    shares = {group: _median(step.shares[task][group] for step in steps if task in step.shares) for group in groups}
    return Task(task, loss, _median(norms), 0.0, shares)


def _cosines(steps: Sequence[Step]) -> dict[tuple[str, str], tuple[float, float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for step in steps:
        for a, b, cosine in step.cosines:
            if math.isfinite(cosine):
                found.setdefault((a, b), []).append(cosine)
    return {pair: (median(own), sum(c < 0 for c in own) / len(own)) for pair, own in found.items()}
