"""A callback that writes the records that `groupwise report` reads.

It writes what a Keras run can tell: the hyperparameters that each update used, the norms that the compiled step keeps
while somebody looks (see `measuring`), what Keras logs, and the losses and weights of balanced tasks.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

import keras

from groupwise._warning import warn
from groupwise.errors import RecordError
from groupwise.keras.algorithms import NEUTRAL
from groupwise.keras.balanced_model import BalancedModel
from groupwise.keras.grouped_optimizer import GroupedOptimizer
from groupwise.keras.measured_step import MeasuredStep
from groupwise.plan import Group as PlanGroup
from groupwise.plan import Resolution
from groupwise.records import Clip, Event, Group, Header, Step, Writer

_NEUTRAL = {native: neutral for neutral, native in NEUTRAL.items()}
_MEASURED = ("gradients", "weights", "updates")
_open: Final[weakref.WeakValueDictionary[Path, Writer]] = weakref.WeakValueDictionary()
"""By folder: a fit that is interrupted calls no callback, so its writer stays open for as long as somebody holds it."""


@final
class Observer(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Records a run of `fit` under a `GroupedOptimizer`. The fits before and after it are left as they are.

        model.fit(x, y, callbacks=[Observer("runs/first")])

    Keras logs running means over the epoch, and so does `scalars` here (`loss` among them). Recording a step waits for
    the device, so on an accelerator let `every` be some tens of steps.

    Args:
        path: the folder of the run; a run that is there goes on in a new part.
        every: in how many batches a line is written.

    Raises:
        RecordError: `every` is not a positive whole number, or the model's optimizer is another one.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise RecordError(f"every is a positive whole number of batches, not {every!r}")
        self._path = path
        self._every = every
        self._process = os.getpid()
        self._writer: Writer | None = None
        self._full = False
        self._pending: Step | None = None
        self._step: MeasuredStep | None = None
        self._updates = 0
        self._batches = 0

    def set_model(self, model: Any) -> None:
        """Note the model, whose optimizer has to be one that can be recorded."""
        super().set_model(model)
        self._optimizer()

    def on_train_begin(self, logs: Any = None) -> None:
        """Have the model's steps measure for as long as this fit goes on; what an interrupted fit left is written."""
        self._flush()
        self._step = MeasuredStep.of(self.model, self._optimizer())
        self._updates = self._count()
        self._batches = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Have this batch measured."""
        if self._step is not None:
            self._step.ask()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the line of the batch before, which is complete now, and note this one."""
        if self._process != os.getpid():
            return
        self._batches += 1
        if self._batches % self._every:
            return
        updates = self._count()
        if updates == self._updates:
            self._skipped(updates)
            return
        self._updates = updates
        self._flush()
        optimizer, writer = self._optimizer(), self._opened()
        self._pending = Step(
            updates - 1,
            0.0 if writer is None else writer.seconds,
            values=_values(optimizer),
            groups={name: _statistics(statistics) for name, statistics in optimizer.measured.items()},
            scalars=_numbers(logs or {}),
            tasks=self.model.told() if isinstance(self.model, BalancedModel) else {},
        )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Add what the epoch ends with, validation included, to its last line."""
        if self._pending is not None:
            self._pending = replace(self._pending, scalars={**self._pending.scalars, **_numbers(logs or {})})
        self._flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Close the run; a later fit goes on in a new part."""
        self._flush()
        if self._process == os.getpid() and self._writer is not None:
            self._write(Event(self._count(), "finished"))
        if self._writer is not None:
            self._writer.close()
        self._writer, self._step = None, None

    def _optimizer(self) -> GroupedOptimizer:
        optimizer = getattr(self.model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if not isinstance(optimizer, GroupedOptimizer):
            raise RecordError(
                f"this callback records a model that is compiled with groupwise.keras.GroupedOptimizer, not with "
                f"{type(optimizer).__name__}; keras.callbacks.CSVLogger writes the losses of any"
            )
        return optimizer

    def _count(self) -> int:
        return int(keras.ops.convert_to_numpy(self._optimizer().iterations))

    def _opened(self) -> Writer | None:
        """The writer; None once the disk was full."""
        if self._writer is None and not self._full:
            folder = Path(self._path).resolve()
            if folder in _open:
                _open.pop(folder).close()
            self._writer = _open[folder] = Writer(self._path, _header(self._optimizer(), self._every, self.model))
            first, after = max(self._updates - 1, 0), self._writer.resumed_after
            if after is not None:
                self._write(Event(first, "resumed", f"goes on at step {first}; the last step before was {after}"))
        return self._writer

    def _flush(self) -> None:
        if self._pending is not None and self._process == os.getpid():
            pending, self._pending = self._pending, None
            self._write(pending)

    def _skipped(self, updates: int) -> None:
        if not self._optimizer().gradient_accumulation_steps:
            self._write(Event(updates, "skipped", "the gradients were not finite"))

    def _write(self, record: Step | Event) -> None:
        """Write a line; a disk that is full must not end a training."""
        writer = self._opened()
        if writer is None:
            return
        try:
            writer.write(record)
        except RecordError as error:
            self._writer, self._full = None, True
            warn(f"recording stops at step {record.step}: {error}")


def _header(optimizer: GroupedOptimizer, every: int, model: Any) -> Header:
    resolution = optimizer.resolution
    return Header(
        every={"values": every, **dict.fromkeys(_MEASURED, every)},
        groups=tuple(_group(resolution, group) for group in resolution.groups if group.algorithm is not None),
        tasks=model.tasks if isinstance(model, BalancedModel) else (),
        writer=f"groupwise, keras {keras.__version__} on {keras.backend.backend()}",
        table=str(resolution),
        total_steps=optimizer.lengths.total_steps,
        steps_per_epoch=optimizer.lengths.steps_per_epoch,
    )


def _group(resolution: Resolution, group: PlanGroup) -> Group:
    rules = [resolution.rules[i].label for i in group.rules]
    scope = group.clip
    clip = None if scope is None else Clip(scope.clip.kind, scope.clip.bound, scope.label)
    return Group(
        group.name,
        str(group.algorithm),
        len(group.parameters),
        group.numel,
        group.network or None,
        rules[-1] if rules else None,
        clip,
    )


def _values(optimizer: GroupedOptimizer) -> dict[str, dict[str, float]]:
    """By group, the numbers that the last update used; names are neutral, and the rate is the one in force.

    What it is multiplied by in the step stands beside it, as in a run of PyTorch.
    """
    rates = optimizer.rates
    found = {
        group: {_NEUTRAL.get(name, name): rates[group] if name == "learning_rate" else x for name, x in values.items()}
        for group, values in optimizer.hyperparameters.items()
    }
    for group, factor in optimizer.rate_factors.items():
        found[group]["rate_factor"] = factor
    return found


def _statistics(statistics: Mapping[str, float]) -> dict[str, float]:
    """What was measured, and the ratios that follow from it."""
    weight = statistics.get("weight_norm", 0.0)
    if not weight > 0:
        return dict(statistics)
    ratios = {"relative_gradient": statistics["grad_norm"] / weight, "update_ratio": statistics["update_norm"] / weight}
    return {**statistics, **ratios}


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    found = {name: float(value) for name, value in logs.items()}
    return {name: value for name, value in found.items() if not math.isnan(value) or name == "loss"}
