"""What rates that follow measurements ask of a class of Keras and of variables: the same as in PyTorch, tried out.

What a step has done is multiplied afterwards, which is a step at another rate only where the class's update is
proportional to its rate. SGD's momentum, which in Keras has rates in it, is so as long as the rate is constant; that is
enough for a ratio, which sets the length of the step itself, and for a controller where nothing schedules the rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from groupwise.errors import ResolutionError
from groupwise.keras._keras import count_update, decay_weights, dtype_of, eagerly, update
from groupwise.keras.algorithms import KerasAlgorithms
from groupwise.keras.building import built, peaks
from groupwise.plan import GradientShare, Group, Resolution, Setting, TrustRatio, UpdateRatio

Array = Any  # of numpy, from keras.ops.convert_to_numpy
Arguments = dict[str, object]
ops = keras.ops

_HALF = ("float16", "bfloat16")
_RATE, _STEPS, _NEAR, _SIDE = 0.01, 3, 1e-3, 3
_SIZE = 0.01  # of the weights: what Adadelta subtracts at first would drown in the rounding of larger ones


def check_measured(resolution: Resolution, algorithms: KerasAlgorithms) -> None:
    """Raise `ResolutionError` for the first group whose rate cannot follow what its factors measure."""
    for group in resolution.groups:
        setting = group.settings.get("learning_rate")
        if setting is None or not setting.measured or group.algorithm is None:
            continue
        for factor in setting.measured:
            who = f"{resolution.declaring_rules(group, 'lr')}: {factor}"
            if isinstance(factor, GradientShare):
                raise ResolutionError(
                    f"{who} compares gradients of several groups, and the step of Keras goes group by group: "
                    "trust_ratio(…) and update_ratio(…) work there, PyTorch's GroupedOptimizer has this one too"
                )
            _check_variables(group, factor, who)
            _check_class(group, setting, factor, algorithms.class_of(group.algorithm), who)


def _check_variables(group: Group, factor: object, who: str) -> None:
    for info in group.parameters:
        dtype = "float32" if info.parameter is None else dtype_of(info.parameter)
        if dtype in _HALF and not _is_of_gradient(factor):
            raise ResolutionError(
                f"{who}: {info.name!r} is {dtype}: what a step has done is read from the weights, which are too coarse "
                "for it; keep its weights in float32, as a mixed_… policy does"
            )


def _check_class(group: Group, setting: Setting, factor: object, cls: type[Any], who: str) -> None:
    values = {**peaks(group.settings), "learning_rate": _RATE}
    for rank in dict.fromkeys(len(info.shape) for info in group.parameters):
        if _is_of_gradient(factor):
            if not follows_gradient(cls, values, rank):
                raise ResolutionError(
                    f"{who} multiplies the gradient and its decay, to which the update of {group.algorithm} is not "
                    "proportional, as that of SGD is: trust_ratio(…) without of='gradient' is of the update (LAMB)"
                )
        elif not follows_rate(cls, values, rank):
            raise ResolutionError(
                f"{who} multiplies an update, and that of {group.algorithm} is not proportional to its learning rate: "
                "give these variables another algorithm, or a factor that is no measurement"
            )
        elif isinstance(factor, UpdateRatio) and setting.schedules and not follows_rate(cls, values, rank, True):
            raise ResolutionError(
                f"{who} compares an update with the rate of the moment, and {group.algorithm} of Keras has the rates "
                "of the past in its state (m = μm - lr·g), which a schedule makes others: declare a constant rate, "
                "or use an algorithm whose state has none (Adam, AdamW, SGD without momentum)"
            )


def _is_of_gradient(factor: object) -> bool:
    return isinstance(factor, TrustRatio) and factor.of == "gradient"


def follows_rate(cls: type[Any], values: Arguments, rank: int, at_once: bool = False) -> bool:
    """Whether twice the rate is twice the update; `at_once` also where only the last rate is twice the others."""

    def rate(step: int) -> float:
        return _RATE if at_once and step < _STEPS - 1 else 2 * _RATE

    once = _updates(cls, values, rank, lambda step: _RATE, _gradient)
    return _are_twice(once[-1:], _updates(cls, values, rank, rate, _gradient)[-1:])


def follows_gradient(cls: type[Any], values: Arguments, rank: int) -> bool:
    """Whether twice the gradient is twice the update at every step, without a decay."""
    without = {**values, "weight_decay": None} if "weight_decay" in values else values
    once = _updates(cls, without, rank, lambda step: _RATE, _gradient)
    return _are_twice(once, _updates(cls, without, rank, lambda step: _RATE, lambda *given: 2 * _gradient(*given)))


def _gradient(weight: Any, step: int) -> Any:
    return ops.cos(weight / _SIZE) + step


def _updates(
    cls: type[Any], values: Arguments, rank: int, rate: Callable[[int], float], gradient: Callable[[Any, int], Any]
) -> list[Array]:
    """What each step subtracts from the same weights."""
    found = []
    with eagerly(True):
        weight = _SIZE * ops.sin(ops.arange(1, _SIDE**rank + 1, dtype="float32"))
        weight = ops.reshape(weight, (_SIDE,) * rank)
        optimizer = built(cls, values, "measured")
        variable = keras.Variable(ops.copy(weight), dtype="float32", name="tried")
        optimizer.build([variable])
        for step in range(_STEPS):
            variable.assign(ops.copy(weight))
            optimizer.learning_rate = rate(step)
            decay_weights(optimizer, [variable])
            update(optimizer, [ops.cast(gradient(weight, step), "float32")], [variable])
            count_update(optimizer)
            found.append(ops.convert_to_numpy(weight) - ops.convert_to_numpy(variable))
    return found


def _are_twice(updates: list[Array], others: list[Array]) -> bool:
    return all(_is_twice(*pair) for pair in zip(updates, others, strict=True))


def _is_twice(update: Array, other: Array) -> bool:
    size = float(abs(update).max())
    return size > 0 and float(abs(other - 2 * update).max()) <= _NEAR * size
