"""Hyperparameters as variables, so that a compiled step reads them instead of having them baked in.

Keras keeps every hyperparameter but the learning rate as a Python number: under a compiled step (jax, tensorflow) a new
value has no effect, and nothing can be scheduled. Here every number that a plan declares is a scalar variable, put in
the place of the number on the group's own optimizer.

Two things are read when the step is compiled. SGD and RMSprop ask whether `momentum` is zero to decide whether there
is a buffer at all: a variable answers any comparison with zero by the sign that the plan declares for good (so a
momentum that is scheduled from 0 to 0.9 is above zero throughout), and a number that the plan declares to be zero for
good stays a number (all but the weight decay, of which nobody asks it). And what a class uses as a Python number
(`range(self.ns_steps)`, a shape, an `if`) stays one: see `tracing`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, final

import keras

from groupwise.errors import OptimizerError, listed, unknown, within
from groupwise.keras.algorithms import NEUTRAL
from groupwise.keras.bounds import check_value
from groupwise.plan import Setting

ALWAYS = ("learning_rate", "weight_decay")
"""What is a variable even where it is zero."""


_SCALAR: Mapping[str, Any] = MappingProxyType(
    {"trainable": False, "autocast": False, "aggregation": "only_first_replica"}
)


@final
class Hyperparameter(keras.Variable):  # type: ignore[misc]  # keras has no types
    """A scalar that the compiled step reads. Compared with zero, it answers by `sign`; with 0 for it, by its value."""

    sign: int

    def __eq__(self, other: object) -> Any:
        return False if self._knows(other) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return True if self._knows(other) else super().__ne__(other)

    def __gt__(self, other: object) -> Any:
        return self.sign > 0 if self._knows(other) else super().__gt__(other)

    def __ge__(self, other: object) -> Any:
        return self.sign > 0 if self._knows(other) else super().__ge__(other)

    def __lt__(self, other: object) -> Any:
        return self.sign < 0 if self._knows(other) else super().__lt__(other)

    def __le__(self, other: object) -> Any:
        return self.sign < 0 if self._knows(other) else super().__le__(other)

    def __bool__(self) -> bool:
        return True if self.sign else bool(self.value)

    __hash__ = keras.Variable.__hash__

    def _knows(self, other: object) -> bool:
        return bool(self.sign) and isinstance(other, int | float) and other == 0


def hyperparameter(value: float, sign: int, index: int, dtypes: Collection[str]) -> Hyperparameter:
    """A new variable that holds `value`, for a group whose variables have these `dtypes`.

    Its name tells nothing, so that no layout map of Keras matches it.
    """
    dtype = "float64" if "float64" in dtypes else "float32"
    variable = Hyperparameter(value, name=f"hyperparameter_{index}", dtype=dtype, **_SCALAR)
    variable.sign = sign
    return variable


def scalar(value: float, name: str, dtype: str = "float32") -> Any:
    """A variable of the step that no plan declares."""
    return keras.Variable(value, name=name, dtype=dtype, **_SCALAR)


def sign_of(setting: Setting) -> int:
    """1 for numbers that are never below zero, -1 for those that are never above it, 0 for those that are both."""
    values = [value for value in setting.key_values if isinstance(value, int | float)]
    return 1 if min(values) >= 0 else -1 if max(values) <= 0 else 0


@final
class GroupValues(MutableMapping[str, float]):
    """The hyperparameters of one group that the plan declares: read as numbers, assigned between epochs.

    Names are Keras' own or neutral. A new value counts from the next step on, compiled or not.
    """

    def __init__(
        self, group: str, variables: Mapping[str, Any], live: Collection[str], settings: Mapping[str, Setting]
    ) -> None:
        self._group = group
        self._variables = variables
        self._live = live
        self._settings = settings

    def __getitem__(self, name: str) -> float:
        return float(keras.ops.convert_to_numpy(self._variables[self._native(name)]))

    def __setitem__(self, name: str, value: float) -> None:
        native = self._native(name)
        with within(f"group {self._group!r}: {native}"):
            if self._settings[native].schedules:
                way = "assign optimizer.learning_rate, a factor on every group" if native == "learning_rate" else ""
                raise OptimizerError(
                    f"the plan schedules it ({self._settings[native]}), so the next step would overwrite {value!r}; "
                    f"{way or 'change the plan'}"
                )
            check_value(native, value)
            if native not in self._live:
                raise OptimizerError(
                    f"it is a Python number to the class or beside variables in half precision, {self[native]:g} for "
                    "as long as the optimizer lives: change the plan"
                )
            if value * self._variables[native].sign < 0:
                raise OptimizerError(f"its sign is compiled in, and {value!r} has the other: change the plan")
            self._variables[native].assign(float(value))

    def restore_fixed(self) -> list[str]:
        """Give the Python numbers of the step, which no load can change, their own values again; what stood there."""
        peaks = {name: self._settings[name].peak for name in self._variables if name not in self._live}
        fixed = {name: float(peak) for name, peak in peaks.items() if isinstance(peak, int | float)}
        other = {name: own for name, own in fixed.items() if not math.isclose(self[name], own, rel_tol=1e-6)}
        said = [f"group {self._group!r}: {name}={self[name]:g}, here {own:g}" for name, own in other.items()]
        for name, own in other.items():
            self._variables[name].assign(own)
        return said

    def __delitem__(self, name: str) -> None:
        raise OptimizerError(f"group {self._group!r}: {name} cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _native(self, name: str) -> str:
        native = name if name in self._variables else NEUTRAL.get(name, name)
        if native in self._variables:
            return native
        if native in self._settings:
            raise OptimizerError(
                f"group {self._group!r}: {native}={self._settings[native]} was fixed when the optimizer was built; "
                f"what can be assigned here: {listed(self._variables)}"
            )
        declared = f"declared there: {listed(self._variables)}"
        raise OptimizerError(f"group {self._group!r}: {unknown('hyperparameter', name, self._variables)}; {declared}")


@final
class ByGroup(Mapping[str, GroupValues]):
    """The hyperparameters of every group that trains, by the group's name."""

    def __init__(self, groups: Mapping[str, GroupValues]) -> None:
        self._groups = groups

    def __getitem__(self, name: str) -> GroupValues:
        if name not in self._groups:
            raise OptimizerError(unknown("group", name, self._groups))
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __repr__(self) -> str:
        return repr(dict(self._groups))
