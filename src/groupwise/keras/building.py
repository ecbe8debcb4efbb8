"""An optimizer of one class from declared values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from groupwise.keras.algorithms import hyperparameters_of, takes_name
from groupwise.plan import Setting

COMPLAINTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What classes raise for arguments that they refuse, and backends where a traced value is used as a Python number."""

FLOATS = ("learning_rate", "weight_decay")
"""What is a float whatever its default: Keras refuses a whole learning rate, and a decay's default is often None."""


def built(cls: type[Any], values: Mapping[str, object], name: str | None = None) -> Any:
    """An optimizer of class `cls`. Whole numbers become floats where the class has a float by default, and only there:
    where the default is a whole number, or none, the number may count something."""
    defaults = hyperparameters_of(cls)
    arguments = {key: _as_default(key, value, defaults[key]) for key, value in values.items()}
    return cls(**arguments, name=name) if takes_name(cls) else cls(**arguments)


def untracked(optimizer: Any, others: Sequence[Any]) -> tuple[Any, ...]:
    """The variables that an optimizer holds by its attributes and does not list, in the attributes' order.

    Keras lists what is assigned to an attribute (Nadam's product of momenta), but not within the `build` of a
    `LossScaleOptimizer`. Such a variable is neither saved nor, on jax, carried from one update to the next.

    Args:
        others: variables that it holds and that are not its state.
    """
    known = {id(variable) for variable in (*optimizer.variables, *others)}
    own = [value for name, value in vars(optimizer).items() if not name.startswith("_self_")]  # tensorflow's tracking
    held = {id(variable): variable for value in own for variable in _variables_in(value)}
    return tuple(variable for key, variable in held.items() if key not in known)


def _variables_in(value: object) -> Iterator[Any]:
    if isinstance(value, keras.Variable):
        yield value
    elif isinstance(value, Mapping):
        yield from _variables_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _variables_in(each)


def peaks(settings: Mapping[str, Setting]) -> dict[str, object]:
    """The value that each setting is built with; one that is scheduled is a float."""
    return {name: as_built(setting, setting.peak) for name, setting in settings.items()}


def as_built(setting: Setting, value: object) -> object:
    """One of the values that a setting takes: a float if it is scheduled."""
    return float(value) if setting.schedules and isinstance(value, int) else value


def stays_whole(cls: type[Any], name: str, value: object) -> bool:
    """Whether a declared number is a whole one to the class."""
    return isinstance(_as_default(name, value, hyperparameters_of(cls)[name]), int)


def _as_default(name: str, value: object, default: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and (name in FLOATS or isinstance(default, float)) else value  # type: ignore[arg-type]
