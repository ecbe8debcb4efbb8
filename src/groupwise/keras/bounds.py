"""What a hyperparameter may be: Keras asks its optimizers for little of it.

`SGD(learning_rate=-1.0)` and `Adam(beta_2=1.5)` are built without a word. So each group's values are looked at before
anything runs, at the start, the peak and the end of a schedule: first against these bounds, then by building the class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from groupwise.errors import OptimizerError, ResolutionError, listed
from groupwise.keras.algorithms import KerasAlgorithms, hyperparameters_of, reads_in_step, takes_name
from groupwise.plan import REQUIRED, Group, Resolution, Setting

_FROM_ZERO = frozenset({"learning_rate", "weight_decay", "epsilon", "adam_weight_decay", "warmup_steps"})
_SHARE = frozenset({"beta_1", "beta_2", "rho", "momentum", "adam_beta_1", "adam_beta_2"})


def check_value(name: str, value: object) -> None:
    """Raise `OptimizerError` if `value` cannot be meant as hyperparameter `name`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise OptimizerError(f"must be a finite number, not {value!r}")
    if name in _FROM_ZERO and value < 0:
        raise OptimizerError(f"must not be negative, got {value:g}")
    if name in _SHARE and not 0 <= value <= 1:
        raise OptimizerError(f"must lie between 0 and 1, got {value:g}")


def try_out(resolution: Resolution, algorithms: KerasAlgorithms) -> None:
    """Look at the values of every group. Raises `ResolutionError` that names the group, its rules and a variable."""
    tried: set[tuple[object, ...]] = set()
    for group in resolution.groups:
        if group.algorithm is not None and (key := (group.algorithm, *group.settings.items())) not in tried:
            tried.add(key)
            with _Complaint(resolution, group):
                _try(algorithms.class_of(group.algorithm), group.settings)


def built(cls: type[Any], values: Mapping[str, object], name: str | None = None) -> Any:
    """An optimizer of class `cls`: whole numbers become floats where the class has a float, or None, by default."""
    defaults = hyperparameters_of(cls)
    spoken = {key: _as_default(value, defaults[key]) for key, value in values.items()}
    return cls(**spoken, name=name) if takes_name(cls) else cls(**spoken)


def _as_default(value: object, default: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and (default is None or default is REQUIRED or isinstance(default, float)) else value  # type: ignore[arg-type]


def _try(cls: type[Any], settings: Mapping[str, Setting]) -> None:
    key_values = {name: setting.key_values for name, setting in settings.items()}
    for name, values in key_values.items():
        for value in values:
            if isinstance(value, int | float) and not isinstance(value, bool):
                _check(name, value)
    longest = max((len(values) for values in key_values.values()), default=1)
    for i in range(longest):
        values_then = {name: values[min(i, len(values) - 1)] for name, values in key_values.items()}
        optimizer = built(cls, values_then)
    for name, setting in settings.items():
        if setting.schedules and not _schedulable(optimizer, name):
            raise OptimizerError(f"it reads {name} once, when it is built, so {name} cannot be scheduled")


def _check(name: str, value: float) -> None:
    try:
        check_value(name, value)
    except OptimizerError as error:
        raise OptimizerError(f"{name} {error}") from None


def _schedulable(optimizer: Any, name: str) -> bool:
    if name == "learning_rate":
        return True
    return isinstance(getattr(optimizer, name, None), float) and reads_in_step(type(optimizer), name)


class _Complaint:
    """Raises what a class complains about as a `ResolutionError` that names the group, its rules and a variable."""

    def __init__(self, resolution: Resolution, group: Group) -> None:
        rules = listed(f"{i + 1} {resolution.rules[i].label!r}" for i in group.rules)
        example = group.parameters[0].name
        self.where = f"group {group.name!r} (rules {rules}), variable {example!r}: {group.algorithm} refuses"

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            raise ResolutionError(f"{self.where}: {error}") from error
