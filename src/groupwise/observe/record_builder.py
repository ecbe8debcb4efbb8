"""A record in the making: what was measured and given of an update, sent off as one vector, and read back as a step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch

from groupwise.observe.gauges import GAUGES, Gauge, readings
from groupwise.observe.host_transfer import NOTHING, HostTransfer, packed
from groupwise.observe.measurement import Measurement
from groupwise.observe.noise import WHOLE, FirstMicroBatch, NoiseScale
from groupwise.observe.ranks import Ranks
from groupwise.observe.sums import of_groups
from groupwise.observe.tensors import precision
from groupwise.observe.user_metrics import Number, Path, UserMetrics, nested, rounded
from groupwise.records import Step


@final
class Logged:
    """The record of an update of which nothing is measured: what the loop gave, numbers that are at hand.

    Most updates are so where cadences are stretched. It is read as a `RecordBuilder` is.
    """

    path, skipped, ready, has_content = False, False, True, True

    def __init__(self, step: int, seconds: float, metrics: UserMetrics) -> None:
        self.step, self.seconds, self.metrics = step, seconds, metrics

    def read(self, noise: NoiseScale) -> Step:
        """The step."""
        single = self.metrics.single
        given = ((path, float(number)) for path, number in self.metrics.numbers.items())
        numbers = [(path, rounded(number) if path in single else number) for path, number in given]
        return Step(self.step, self.seconds, {}, {}, conflicting=self.metrics.conflicting, **nested(numbers))


@final
class RecordBuilder:
    """The record of one update.

    Args:
        step, seconds: its number and its time.
        taking: what was taken.
        metrics: what the loop gave.
        batch: the micro-batches, if gradients were accumulated.
        found_inf: where a fused step says whether it was skipped.
        path: whether the end of its path is still to come.
        values: the hyperparameters that the update used, by group.
    """

    def __init__(
        self,
        step: int,
        seconds: float,
        measurement: Measurement,
        metrics: UserMetrics,
        batch: FirstMicroBatch | None,
        found_inf: torch.Tensor | None,
        path: bool,
        values: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.step, self.seconds, self.measurement, self.metrics = step, seconds, measurement, metrics
        self.path, self.skipped = path, False
        self._batch, self._found_inf = batch, found_inf
        self._rows = measurement.sums
        self._facts = measurement.facts() if measurement.due else []
        self._values = values
        self._transfer: HostTransfer | None = None
        self._path: list[float] | None = None
        self._numbers: dict[Path, Number] = {}

    @property
    def has_content(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.measurement.due or self.metrics.numbers or self.metrics.conflicting)

    @property
    def ready(self) -> bool:
        """Whether it can be read without waiting."""
        return self._transfer is not None and self._transfer.ready

    def send(self, ranks: Ranks | None) -> None:
        """Exchange what ranks exchange, and send everything to the host; once. Without ranks nothing is exchanged.

        The path of the update before travels along: it ends in the gradients of this one.
        """
        if self._transfer is not None:
            return
        together = ranks is not None and ranks.together
        measured = self.measurement.due or self.measurement.path is not None or self._found_inf is not None
        given = self.metrics.numbers
        if not (measured or together) and all(type(number) is float for number in given.values()):
            self._numbers, self._transfer = given, NOTHING
            return
        device, dtype = self.measurement.device, precision(self.measurement.device)
        self._numbers = dict(self.metrics.numbers)
        if together and self.measurement.sharded:
            self._rows.add_up()
        rows = [*self._rows.vectors, *([] if self.measurement.path is None else [self.measurement.path])]
        if ranks is not None and together:
            names = {repr(path): path for path in self._numbers}
            tensors = {name: torch.as_tensor(self._numbers[path], dtype=dtype) for name, path in names.items()}
            own = packed(rows, device, dtype) if self.measurement.sharded else None
            summed, means = ranks.exchanged(own, tensors, device, dtype)
            rows = rows if summed is None else [summed]
            self._numbers = {names[name]: mean for name, mean in means.items()}
        parts = [*rows, *self._tensors(), *([] if self._found_inf is None else [self._found_inf])]
        self._transfer = HostTransfer(packed(parts, device, dtype)) if parts else NOTHING

    def end_path(self, following: RecordBuilder | None) -> None:
        """Take the end of the path from the update that followed, if that has it."""
        self.path = False
        if following is not None and following.measurement.path is not None:
            self._path = following._parts()[1]

    def read(self, noise: NoiseScale) -> Step:
        """The step; waits for the numbers if they are still on their way. `skipped` says whether it was none."""
        rows, _, rest = self._parts()
        if self._path is not None:
            rows["pd"] = self._path
        on_device = iter(rest)
        values = {
            group: {name: n if type(n) is float else next(on_device) for name, n in own.items()}
            for group, own in self._values.items()
        }
        read_numbers = [
            (path, n if type(n) is float else rounded(next(on_device))) for path, n in self._numbers.items()
        ]
        read_numbers = [(path, rounded(n) if path in self.metrics.single else n) for path, n in read_numbers]
        self.skipped = self._found_inf is not None and next(on_device) > 0
        step = Step(
            self.step,
            self.seconds,
            values,
            self._groups(rows),
            conflicting=self.metrics.conflicting,
            **nested(read_numbers),
        )
        return self._with_noise(step, rows, noise)

    def _parts(self) -> tuple[dict[str, list[float]], list[float], list[float]]:
        """The numbers that arrived: the rows, the path of the update before, and the rest."""
        numbers = self._transfer.numbers() if self._transfer is not None else []
        end, path = len(self._rows), 0 if self.measurement.path is None else len(self.measurement.path)
        return self._rows.rows(numbers), numbers[end : end + path], numbers[end + path :]

    def _tensors(self) -> list[torch.Tensor]:
        numbers = [*(value for own in self._values.values() for value in own.values()), *self._numbers.values()]
        return [number for number in numbers if type(number) is not float]

    def _sums(self, rows: dict[str, list[float]]) -> list[dict[str, float]]:
        """What the gauges read, by group: the sums that are of it, and the facts."""
        found = of_groups(rows, len(self.measurement.snapshot.names))
        for i, (sums, facts) in enumerate(zip(found, self._facts, strict=True)):
            sums.update(facts)
            for key, groups in self.measurement.known.items():
                if i not in groups:
                    del sums[key]
            if not facts["present"]:
                for key in ("gg", "clip"):
                    sums.pop(key, None)
            elif sums.get("gg", 0.0) > 0 and "clipped" in sums:
                sums["clip"] = (sums["clipped"] / sums["gg"]) ** 0.5
        return found

    def _groups(self, rows: dict[str, list[float]]) -> dict[str, dict[str, float]]:
        if not self.measurement.due:
            return {}
        due = self.measurement.due | ({"path"} if "pd" in rows else frozenset())
        read = (readings(_told_by(due, tuple(sums)), sums) for sums in self._sums(rows))
        named = zip(self.measurement.snapshot.names, read, strict=True)
        return {name: {key: rounded(value) for key, value in own.items()} for name, own in named if own}

    def _with_noise(self, step: Step, rows: dict[str, list[float]], noise: NoiseScale) -> Step:
        if self._batch is None or "first" not in rows or "gg" not in rows:
            return step
        scales = noise.update(
            self.measurement.snapshot.names, of_groups(rows, len(self.measurement.snapshot.names)), self._batch
        )
        groups = {
            name: {**own, "noise_scale": rounded(scales[name])} if name in scales else own
            for name, own in step.groups.items()
        }
        whole = {"noise_scale": rounded(scales[WHOLE])} if WHOLE in scales else {}
        return replace(step, groups=groups, scalars={**step.scalars, **whole})


@functools.lru_cache(maxsize=256)
def _told_by(due: frozenset[str], sums: tuple[str, ...]) -> tuple[Gauge, ...]:
    """The gauges of some families whose sums were taken."""
    return tuple(gauge for gauge in GAUGES if gauge.family in due and all(key in sums for key in gauge.needs))
