"""What a hyperparameter may be: Keras asks its optimizers for little of it.

`SGD(learning_rate=-1.0)` and `Adam(beta_2=1.5)` are built without a word. So each group's values are looked at before
anything runs, at the start, the peak and the end of a schedule: first against these bounds, then by building the class,
and by tracing one step of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from groupwise.errors import OptimizerError, ResolutionError, listed
from groupwise.keras.algorithms import KerasAlgorithms, reads_in_step
from groupwise.keras.building import COMPLAINTS, as_built, built, peaks
from groupwise.plan import Group, Resolution, Setting

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


def check_values(resolution: Resolution, algorithms: KerasAlgorithms) -> None:
    """Look at the values of every group. Raises `ResolutionError` that names the group, its rules and a variable."""
    for group, cls in _distinct(resolution, algorithms):
        with _naming(resolution, group):
            _check_group(cls, group.settings)


def check_schedules(resolution: Resolution, algorithms: KerasAlgorithms, read: Mapping[str, Collection[str]]) -> None:
    """Refuse, as `check_values` does, schedules of numbers that the step of a group does not read (`read`) anew."""
    for group, cls in _distinct(resolution, algorithms):
        scheduled = [name for name, setting in group.settings.items() if setting.schedules and name != "learning_rate"]
        with _naming(resolution, group):
            optimizer = built(cls, peaks(group.settings), "checked") if scheduled else None
            for name in scheduled:
                _check_schedulable(optimizer, name, read[group.name])


def _distinct(resolution: Resolution, algorithms: KerasAlgorithms) -> Iterator[tuple[Group, type[Any]]]:
    """A group for each algorithm with other settings, and its class."""
    checked: set[tuple[object, ...]] = set()
    for group in resolution.groups:
        if group.algorithm is not None and (key := (group.algorithm, *group.settings.items())) not in checked:
            checked.add(key)
            yield group, algorithms.class_of(group.algorithm)


def _check_group(cls: type[Any], settings: Mapping[str, Setting]) -> None:
    key_values = {name: setting.key_values for name, setting in settings.items()}
    for name, values in key_values.items():
        for value in values:
            if isinstance(value, int | float) and not isinstance(value, bool):
                _check(name, value)
    longest = max((len(values) for values in key_values.values()), default=1)
    for i in range(longest):
        values_then = {name: values[min(i, len(values) - 1)] for name, values in key_values.items()}
        built(cls, {name: as_built(settings[name], value) for name, value in values_then.items()}, "checked")


def _check(name: str, value: float) -> None:
    try:
        check_value(name, value)
    except OptimizerError as error:
        raise OptimizerError(f"{name} {error}") from None


def _check_schedulable(optimizer: Any, name: str, read: Collection[str]) -> None:
    if not isinstance(getattr(optimizer, name, None), float) or not reads_in_step(type(optimizer), name):
        raise OptimizerError(f"it reads {name} once, when it is built, so {name} cannot be scheduled")
    if name not in read:
        raise OptimizerError(
            f"it uses {name} as a Python number (in a loop, a shape or an if), which a compiled step has for good, so "
            f"{name} cannot be scheduled"
        )


@contextlib.contextmanager
def _naming(resolution: Resolution, group: Group) -> Iterator[None]:
    """Raise what a class complains about as a `ResolutionError` that names the group, its rules and a variable."""
    try:
        yield
    except COMPLAINTS as error:
        rules = listed(f"{i + 1} {resolution.rules[i].label!r}" for i in group.rules)
        where = f"group {group.name!r} (rules {rules}), variable {group.parameters[0].name!r}"
        raise ResolutionError(f"{where}: {group.algorithm} refuses: {error}") from error
