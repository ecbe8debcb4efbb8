"""Clipping as part of the plan, inside a compiled step.

With g_i the gradients of a scope and N their joint 2-norm, clipping to c multiplies each by f = min(1, c / (N + 1e-6)),
as `torch.nn.utils.clip_grad_norm_` and the torch side of this library do. (Keras' own `clipnorm` is a norm for each
variable, its `global_clipnorm` one over everything.) The plan's own clip comes last and sees f × g_i. Under
accumulation it is the accumulated gradient that is clipped. A variable whose group is frozen then counts as zero.

Adaptive clipping (Brock et al. 2021) bounds, for each output unit, the gradient's norm by a share of the weights'. A
unit is the last axis of a Keras kernel, the first axis of an embedding table, and the whole of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras

from groupwise.errors import OptimizerError
from groupwise.plan import Clip, Resolution
from groupwise.select import ParameterInfo

ops = keras.ops


@final
@dataclass(frozen=True)
class _Place:
    """Where a variable's gradient is clipped: its rule's clip, if any, and the sets whose norms it shares."""

    clip: Clip | None
    scope: tuple[object, ...]
    whole: tuple[object, ...]
    rows: bool


@final
class Clipper:
    """Clips the gradients of a step by the scopes of one resolution."""

    def __init__(self, resolution: Resolution) -> None:
        self._whole = resolution.clip
        for clip in (self._whole, *(group.clip.clip for group in resolution.groups if group.clip)):
            if clip is not None and clip.nonfinite != "pass":
                raise OptimizerError(
                    f"clip_norm(…, nonfinite={clip.nonfinite!r}) is for torch: a compiled Keras step cannot be left "
                    "out; keras.callbacks.TerminateOnNaN() ends such a run"
                )
        self._places: dict[str, _Place] = {}
        for group in resolution.groups:
            for info in group.parameters:
                own = group.clip.clip if group.clip else None
                scope = (group.clip.rule, *_subset(own, info)) if group.clip else ()
                whole = _subset(self._whole, info)
                self._places[info.name] = _Place(own, scope, whole, "embedding" in info.roles)

    @property
    def idle(self) -> bool:
        """Whether the plan clips nothing."""
        return self._whole is None and all(place.clip is None for place in self._places.values())

    def clip(
        self, names: Sequence[str], gradients: Sequence[Any], weights: Sequence[Any], trains: Sequence[Any]
    ) -> list[Any]:
        """The clipped gradients.

        Args:
            names: of the variables, as the resolution has them.
            gradients: one for each.
            weights: the variables themselves.
            trains: for each whether its group trains at this update: a boolean tensor, or None for always.
        """
        places = [self._places[name] for name in names]
        clipped = [
            _entrywise(place.clip, g, w, place.rows) for place, g, w in zip(places, gradients, weights, strict=True)
        ]
        whole = self._whole
        keys = [place.scope if place.clip is not None and place.clip.kind == "norm" else None for place in places]
        bounds = {place.scope: place.clip.bound for place in places if place.clip is not None}
        joint = whole is not None and whole.kind == "norm"
        squares = [
            _square(g, on) if joint or key is not None else None
            for g, on, key in zip(clipped, trains, keys, strict=True)
        ]
        factors = _factors(squares, keys, bounds)
        if whole is not None and joint:
            scaled = [s if f is None else s * f * f for s, f in zip(squares, factors, strict=True)]
            own = _factors(scaled, [place.whole for place in places], {place.whole: whole.bound for place in places})
            factors = [b if a is None else a * b for a, b in zip(factors, own, strict=True)]
        scaled = [g if f is None else g * ops.cast(f, g.dtype) for g, f in zip(clipped, factors, strict=True)]
        if whole is None or joint:
            return scaled
        return [_entrywise(whole, g, w, place.rows) for place, g, w in zip(places, scaled, weights, strict=True)]


def _subset(clip: Clip | None, info: ParameterInfo) -> tuple[object, ...]:
    """Which of the sets that have a norm of their own, under `clip.per`, a variable belongs to."""
    if clip is not None and clip.per == "parameter":
        return (info.name,)
    if clip is not None and clip.per == "module":
        return (info.name.rpartition(".")[0] or info.network,)
    return (info.network,)


def _square(gradient: Any, trains: Any) -> Any:
    square = ops.sum(ops.square(ops.cast(gradient, "float32")))
    return square if trains is None else ops.where(trains, square, 0.0)


def _factors(squares: Sequence[Any], keys: Sequence[object], bounds: dict[Any, float]) -> list[Any]:
    """For each gradient what its scope's norm leaves of it; None where its key is None."""
    found: dict[object, Any] = {}
    for key in dict.fromkeys(key for key in keys if key is not None):
        norm = _root(square for square, own in zip(squares, keys, strict=True) if own == key)
        found[key] = ops.minimum(bounds[key] / (norm + 1e-6), 1.0)
    return [None if key is None else found[key] for key in keys]


def _root(squares: Iterable[Any]) -> Any:
    return ops.sqrt(ops.sum(ops.stack(list(squares))))


def _entrywise(clip: Clip | None, gradient: Any, weight: Any, rows: bool) -> Any:
    """Value and adaptive clipping: every entry, or every unit, on its own."""
    if clip is None or clip.kind == "norm":
        return gradient
    if clip.kind == "value":
        return ops.clip(gradient, -clip.bound, clip.bound)
    allowed = ops.maximum(_unit_norm(ops.convert_to_tensor(weight), rows), clip.eps) * clip.bound
    norm = _unit_norm(gradient, rows)
    small = ops.less_equal(norm, allowed)
    return gradient * ops.where(small, ops.ones_like(norm), allowed / ops.where(small, ops.ones_like(norm), norm))


def _unit_norm(t: Any, rows: bool) -> Any:
    """The norm of every unit of `t`, to be broadcast over it."""
    axes = tuple(range(1, len(t.shape))) if rows else tuple(range(len(t.shape) - 1))
    return ops.sqrt(ops.sum(ops.square(t), axis=axes if len(t.shape) > 1 else None, keepdims=True))
