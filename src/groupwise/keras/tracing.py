"""Which of a class's numbers can be variables: what tracing one step of it says.

A compiled step reads a variable anew each time, and a class may use its numbers in ways that no variable allows: as the
length of a loop, as a shape, in an `if`. So one step of the class is traced symbolically (no number is computed), on
small stand-ins for the group's variables, with a variable in the place of every declared number. Where that fails each
number is tried by itself, and those that fail stay the Python numbers that they are to plain Keras.

Never tried is a whole number whose default is a whole number (`ns_steps=5`), since such a number counts something.

Beside variables in half precision only the rate, the weight decay and what is scheduled are variables. A Python number
is rounded to their dtype, and `1 - beta_2` is computed in double precision before it is; a variable is neither: with
it, `x * momentum` is rounded once, or the product is in float32, and weights would be a rounding step off plain Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, final

import keras

from groupwise.keras._keras import decay_weights, dtype_of, errors_of_backend, update
from groupwise.keras.algorithms import KerasAlgorithms, hyperparameters_of, reads_in_step
from groupwise.keras.building import COMPLAINTS, built, peaks, stays_whole
from groupwise.keras.engine import put
from groupwise.keras.hyperparameters import ALWAYS, hyperparameter, sign_of
from groupwise.plan import Group, Resolution, Setting

_LARGEST = 3
_HALF = ("float16", "bfloat16")

Kind = tuple[tuple[int, ...], str]


def numbers_read(
    resolution: Resolution, algorithms: KerasAlgorithms, variables: Mapping[str, Any]
) -> dict[str, frozenset[str]]:
    """By the name of each group that may train, the declared numbers that its step reads from variables.

    Args:
        variables: of the model by name, as far as they are here; their dtypes count.
    """
    known: dict[object, frozenset[str]] = {}
    found = {}
    for group in resolution.groups:
        if group.algorithm is None:
            continue
        kinds = _kinds(group, variables)
        key = (group.algorithm, repr(sorted(group.settings.items())), kinds)
        if key not in known:
            known[key] = _read(algorithms.class_of(group.algorithm), group.settings, kinds)
        found[group.name] = known[key]
    return found


def held_in_variables(cls: type[Any], settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """The declared numbers that the state has a variable for, the same on every backend, whether or not it is read."""
    return tuple(name for name, setting in settings.items() if _is_held(cls, name, setting))


def _is_held(cls: type[Any], name: str, setting: Setting) -> bool:
    value = setting.peak
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name in ALWAYS or setting.schedules:
        return True
    return value != 0 and not stays_whole(cls, name, value) and reads_in_step(cls, name)


def _kinds(group: Group, variables: Mapping[str, Any]) -> tuple[Kind, ...]:
    """Small shapes with the dtypes of a group's variables, one for each number of dimensions."""
    found: dict[tuple[int, str], Kind] = {}
    for info in group.parameters:
        dtype = dtype_of(variables[info.name]) if variables.get(info.name) is not None else "float32"
        found.setdefault((len(info.shape), dtype), (tuple(min(size, _LARGEST) for size in info.shape), dtype))
    return tuple(found.values())


def _read(cls: type[Any], settings: Mapping[str, Setting], kinds: Sequence[Kind]) -> frozenset[str]:
    names = frozenset(held_in_variables(cls, settings))
    if any(dtype in _HALF for _, dtype in kinds):
        names = frozenset(name for name in names if name in ALWAYS or settings[name].schedules)
    asked = names - {"learning_rate"}
    if not asked or _traces(cls, settings, kinds, asked) or not _traces(cls, settings, kinds, ()):
        return names  # a class that cannot be traced at all says nothing about its numbers
    return names - {name for name in asked if not _traces(cls, settings, kinds, (name,))}


def _traces(cls: type[Any], settings: Mapping[str, Setting], kinds: Sequence[Kind], names: Collection[str]) -> bool:
    """Whether one step can be traced with variables in the place of `names`."""
    optimizer = built(cls, peaks(settings) | _whole(cls, settings, names), "traced")
    dtypes = [dtype for _, dtype in kinds]
    numbers = {
        name: hyperparameter(float(settings[name].peak), sign_of(settings[name]), i, dtypes)  # type: ignore[arg-type]
        for i, name in enumerate(sorted(names))
    }
    put(optimizer, numbers)
    variables = [keras.Variable(keras.ops.ones(*kind), dtype=kind[1], name=f"v{i}") for i, kind in enumerate(kinds)]
    step: Any = _Step(optimizer, list(numbers.values()), variables)
    refusals: tuple[type[Exception], ...] = (*COMPLAINTS, *errors_of_backend())
    try:
        optimizer.build(variables)
        step(
            [keras.KerasTensor((), number.dtype) for number in numbers.values()],
            [keras.KerasTensor(*kind) for kind in kinds],
        )
    except refusals:
        return False
    return True


def _whole(cls: type[Any], settings: Mapping[str, Setting], names: Collection[str]) -> dict[str, int]:
    """Whole numbers for what counts something, is scheduled, and is not among the variables `names`."""
    counts = {name for name, default in hyperparameters_of(cls).items() if type(default) is int}
    return {
        name: round(setting.peak)
        for name, setting in settings.items()
        if name in counts - set(names) and setting.schedules and isinstance(setting.peak, int | float)
    }


@final
class _Step(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """One update as a layer: a call with symbolic inputs is Keras' public way to trace."""

    def __init__(self, optimizer: Any, numbers: Sequence[Any], variables: Sequence[Any]) -> None:
        super().__init__(autocast=False, name="traced_step")
        self._parts: Callable[[], Any] = lambda: (
            optimizer,
            numbers,
            variables,
        )  # in a function, where Keras does not track them

    def call(self, values: Sequence[Any], gradients: Sequence[Any]) -> Any:
        """Update and decay; the update comes first, since only a variable that is not yet assigned has a place."""
        optimizer, numbers, variables = self._parts()
        for number, value in zip(numbers, values, strict=True):
            number.assign(value)
        update(optimizer, gradients, variables)
        decay_weights(optimizer, variables)
        return gradients
