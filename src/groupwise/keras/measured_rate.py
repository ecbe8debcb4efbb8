"""A group's step under factors that are measured in it, as part of the compiled step.

Whatever the class, it decays and updates at the group's own rate. What that has done can be read, as the weights before
it less those after it, and multiplied: w ← w' + (1 - f) (w - w'), which is w' itself where f is 1. That needs nothing
of the class but an update that is proportional to its rate (`measured_checks`), and nothing of the backend but norms.
LARS's ratio is of the gradient: the class is given f (g + λ w), and decays nothing.

A class of Keras may hold rates in its state: SGD's momentum is m = μm - lr·g. While the rate is constant, this is the
step that the same plan makes in PyTorch. Under a schedule the direction is Keras' own, a sum over the rates of the
past; the length, which a ratio sets anew, is not.

The factor in force, and what a controller knows, are variables of the optimizer, so they are saved, restored and held
still with the rest of a group's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras

from groupwise.keras._keras import decay_weights, update
from groupwise.keras.hyperparameters import scalar
from groupwise.plan import Group, MeasuredFactor, TrustRatio, UpdateRatio

ops = keras.ops


@final
@dataclass(frozen=True, eq=False)
class MeasuredRate:
    """The measured factors of a group's rate.

    Args:
        trust, controller: those that it has.
        peak: the rate's peak as the plan declares it.
        factor: the variable of what the last step's rate was multiplied by, a mean over tensors.
        log: the variable of the logarithm of the controller's next factor; None without one.
    """

    trust: TrustRatio | None
    controller: UpdateRatio | None
    peak: float
    factor: Any
    log: Any

    @property
    def state(self) -> list[Any]:
        """What is carried from one update to the next."""
        return [self.factor] if self.log is None else [self.factor, self.log]

    @property
    def of_gradient(self) -> bool:
        """Whether a ratio is of the gradient, which then has to be that of the whole batch."""
        return self.trust is not None and self.trust.of == "gradient"

    def step(
        self,
        optimizer: Any,
        rate: Any,
        gradients: Sequence[Any],
        variables: Sequence[Any],
        share: Callable[[Any], Any],
    ) -> None:
        """Decay and update `variables` by `optimizer`, which reads `rate`, at that rate times the factors.

        Args:
            share: what of a gradient is this device's part of the sum over all.
        """
        before = [ops.copy(ops.convert_to_tensor(variable)) for variable in variables]
        weights = _norms(before)
        found = ops.ones_like(weights)
        if self.trust is not None and self.of_gradient:
            decay = _decay(optimizer)
            found = _ratio(self.trust, weights, _with_decay(self.trust, _norms(gradients), decay, weights))
            pairs = enumerate(zip(gradients, before, strict=True))
            update(optimizer, [share(_scaled(*pair, found[i], decay)) for i, pair in pairs], variables)
        else:
            decay_weights(optimizer, variables)
            update(optimizer, [share(gradient) for gradient in gradients], variables)
        if self.controller is not None or not self.of_gradient:
            found = found * self._rescaled(ops.cast(rate, weights.dtype), before, weights, variables)
        self.factor.assign(ops.cast(ops.mean(found), self.factor.dtype))

    def _rescaled(self, rate: Any, before: Sequence[Any], weights: Any, variables: Sequence[Any]) -> Any:
        """Multiply what was subtracted from `variables`; by what, shape [variables]."""
        subtracted = [old - ops.convert_to_tensor(new) for old, new in zip(before, variables, strict=True)]
        moved = _norms(subtracted)
        factor = ops.ones_like(weights)
        if self.trust is not None and not self.of_gradient:
            factor = _ratio(self.trust, weights * rate, moved)
        if self.controller is not None:
            factor = factor * ops.exp(ops.cast(ops.convert_to_tensor(self.log), factor.dtype))
            ratio = ops.norm(moved * factor) / ops.norm(weights) * (self.peak / rate)
            self.log.assign(ops.cast(_corrected(self.controller, ops.convert_to_tensor(self.log), ratio), "float32"))
        for i, (variable, part) in enumerate(zip(variables, subtracted, strict=True)):
            rest = ops.cast(1 - factor[i], part.dtype)
            variable.assign(variable + rest * part)
        return factor


def measured_rate(group: Group, index: int) -> MeasuredRate | None:
    """The measured factors of a group; None where it has none."""
    setting = group.settings.get("learning_rate")
    factors = [f for f in setting.measured if isinstance(f, MeasuredFactor)] if setting is not None else []
    if setting is None or not factors or not isinstance(setting.peak, int | float):
        return None
    trust = next((factor for factor in factors if isinstance(factor, TrustRatio)), None)
    controller = next((factor for factor in factors if isinstance(factor, UpdateRatio)), None)
    log = None if controller is None else scalar(0.0, f"update_ratio_log_{index}")
    return MeasuredRate(trust, controller, float(setting.peak), scalar(1.0, f"rate_factor_{index}"), log)


def _norms(tensors: Sequence[Any]) -> Any:
    """The norm of each, shape [tensors]; in float32 at least."""
    squares = [ops.sum(ops.square(_wide(ops.convert_to_tensor(t)))) for t in tensors]
    widest = "float64" if any(_dtype(square) == "float64" for square in squares) else "float32"
    return ops.sqrt(ops.stack([ops.cast(square, widest) for square in squares]))


def _wide(t: Any) -> Any:
    return t if _dtype(t) == "float64" else ops.cast(t, "float32")


def _dtype(t: Any) -> str:
    return str(keras.backend.standardize_dtype(t.dtype))


def _ratio(factor: TrustRatio, weights: Any, others: Any) -> Any:
    """coefficient · |w| / |other| within its bounds, 1 where a norm is 0: shape [variables]."""
    shape = weights
    if factor.per == "group":
        weights, others = ops.norm(weights), ops.norm(others)
    known = ops.logical_and(weights > 0, others > 0)
    ratio = factor.coefficient * weights / ops.where(known, others, ops.ones_like(others))
    ratio = ops.maximum(ratio, factor.low)
    ratio = ratio if factor.high is None else ops.minimum(ratio, factor.high)
    return ops.where(known, ratio, ops.ones_like(ratio)) * ops.ones_like(shape)


def _with_decay(factor: TrustRatio, gradients: Any, decay: Any, weights: Any) -> Any:
    """|g| + λ |w|, what LARS divides by."""
    if factor.per == "group":
        gradients, weights = ops.norm(gradients), ops.norm(weights)
    return gradients + ops.cast(decay, gradients.dtype) * weights


def _scaled(gradient: Any, weight: Any, factor: Any, decay: Any) -> Any:
    """f (g + λ w)."""
    return (gradient + ops.cast(decay, weight.dtype) * weight) * ops.cast(factor, weight.dtype)


def _decay(optimizer: Any) -> Any:
    return 0.0 if optimizer.weight_decay is None else optimizer.weight_decay


def _corrected(factor: UpdateRatio, log: Any, ratio: Any) -> Any:
    """The logarithm of the controller's next factor. A ratio that is 0 or not finite corrects nothing."""
    ratio = ops.cast(ratio, "float32")
    known = ops.logical_and(ratio > 0, ops.isfinite(ratio))
    error = math.log(factor.target) - ops.log(ops.where(known, ratio, ops.ones_like(ratio)))
    error = ops.where(known, error, ops.zeros_like(error))
    return ops.clip(log + factor.speed * error, math.log(factor.low), math.log(factor.high))
