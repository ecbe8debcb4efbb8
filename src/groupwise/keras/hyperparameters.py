"""Hyperparameters as variables, so that a compiled step reads them instead of having them baked in.

Keras keeps every hyperparameter but the learning rate as a Python number: under a compiled step (jax, tensorflow) a new
value has no effect, and nothing can be scheduled. Here every number that a plan declares is a scalar variable, put in
the place of the number on the group's own optimizer.

One thing is read when the step is compiled, and must stay readable: SGD and RMSprop ask whether `momentum` is zero to
decide whether there is a buffer at all. A variable says that it is not, whatever its value is now; a number that the
plan declares to be zero for good stays a number (all but the weight decay, of which nobody asks it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, final

import keras

from groupwise.errors import OptimizerError, listed, unknown, within
from groupwise.keras.algorithms import NEUTRAL
from groupwise.keras.bounds import check_value
from groupwise.plan import Setting

ALWAYS = ("learning_rate", "weight_decay")
"""What is a variable even where it is zero."""


@final
class Hyperparameter(keras.Variable):  # type: ignore[misc]  # keras has no types
    """A scalar that the compiled step reads. Asked whether it is zero, it says no."""

    def __ne__(self, other: object) -> Any:
        return True if _zero(other) else super().__ne__(other)

    def __gt__(self, other: object) -> Any:
        return True if _zero(other) else super().__gt__(other)

    __hash__ = keras.Variable.__hash__


def _zero(other: object) -> bool:
    return isinstance(other, int | float) and other == 0


def hyperparameter(value: float, index: int) -> Hyperparameter:
    """A new variable that holds `value`. Its name tells nothing, so that no layout map of Keras matches it."""
    return Hyperparameter(
        value,
        dtype="float32",
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        name=f"hyperparameter_{index}",
    )


def becomes_variable(name: str, setting: Setting) -> bool:
    """Whether a declared number is one that the step reads anew each time."""
    number = isinstance(setting.peak, float | int) and not isinstance(setting.peak, bool)
    return number and (name in ALWAYS or bool(setting.schedules) or setting.peak != 0)


@final
class GroupValues(MutableMapping[str, float]):
    """The hyperparameters of one group that the plan declares: read as numbers, assigned between epochs.

    Names are Keras' own or neutral. A new value counts from the next step on, compiled or not.
    """

    def __init__(self, group: str, variables: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
        self._group = group
        self._variables = variables
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
            self._variables[native].assign(float(value))

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
                "numbers that the plan declares as other than zero can be assigned"
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
