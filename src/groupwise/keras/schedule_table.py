"""Schedules inside a compiled step: a table, looked up by the number of the update.

A schedule is a Python function of the step, and a compiled step calls no Python. So each distinct course of values is
written down once, in double precision by the very function that every other part of the library calls, rounded once to
float32, and gathered by index:

    value(t) = table[course, min(t, total_steps)] × factor

Groups that differ in constant factors alone (every level of a layer-wise decay) share a course. All kinds take this one
path, Python functions included. The cost is 4 bytes for each course and update (a million updates: 4 MB), one gather a
step, and the time that it takes to write the table down when the optimizer is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras

from groupwise.plan import ScalarSetting, Setting


@final
class Table:
    """The values of some settings at every update from 0 to `total_steps`; past its end the last ones hold."""

    def __init__(self, settings: Sequence[Setting], total_steps: int, steps_per_epoch: int | None) -> None:
        courses: dict[Setting, int] = {}
        self._rows = [courses.setdefault(setting.unscaled, len(courses)) for setting in settings]
        self._factors = [setting.constant_factor if isinstance(setting, ScalarSetting) else 1.0 for setting in settings]
        self._last = total_steps
        values = [
            [course.at(step, total_steps, steps_per_epoch) for course in courses] for step in range(total_steps + 1)
        ]
        self._values = keras.Variable(values, dtype="float32", trainable=False, autocast=False, name="schedules")

    @property
    def courses(self) -> int:
        """How many distinct courses it holds."""
        return int(self._values.shape[1])

    def at(self, step: Any) -> list[Any]:
        """The value of each setting at update `step`, an integer tensor of shape []: scalars, float32."""
        ops = keras.ops
        row = ops.take(self._values, ops.minimum(step, self._last), axis=0)
        chosen = ops.take(row, ops.convert_to_tensor(self._rows, dtype="int32"), axis=0)
        scaled = ops.multiply(chosen, ops.convert_to_tensor(self._factors, dtype="float32"))
        return [scaled[i] for i in range(len(self._rows))]
