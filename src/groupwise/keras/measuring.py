"""What a compiled step can tell of itself: a few norms for each group, kept in a variable of the optimizer.

A compiled step gives nothing back but the new values of variables, so what a callback is to read after it must be one.
It is always there, so that the saved state is the same whether or not anybody looks, and written only while somebody
does: the norms cost a copy of the weights and one more pass over gradients and weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

STATISTICS = ("grad_norm", "clip_factor", "no_grad", "weight_norm", "update_norm", "contribution")
"""The rows of the variable, named as in the schema of records."""

ops = keras.ops


def measurements(groups: int) -> Any:
    """The variable, shape [statistics, groups]; a norm below zero where nothing was measured."""
    shape = (len(STATISTICS), max(groups, 1))
    return keras.Variable(
        keras.initializers.Constant(-1.0),
        shape=shape,
        dtype="float32",
        trainable=False,
        aggregation="only_first_replica",
        name="measured",
    )


def column(
    gradients: Sequence[Any], clipped: Sequence[Any], before: Sequence[Any], after: Sequence[Any], missing: int
) -> Any:
    """The statistics of one group at one update, shape [statistics].

    Args:
        gradients: before clipping.
        clipped: after it.
        before, after: the weights around the update.
        missing: how many of the group's variables had no gradient.
    """
    updates = [_wide(new) - old for new, old in zip(after, before, strict=True)]
    norm, left = _norm(gradients), _norm(clipped)
    factor = ops.where(norm > 0, left / ops.where(norm > 0, norm, 1.0), 1.0)
    inner = [ops.sum(_wide(g) * update) for g, update in zip(gradients, updates, strict=True)]
    contribution = -ops.sum(ops.stack(inner))
    count = ops.convert_to_tensor(float(missing), dtype="float32")
    return ops.stack([norm, factor, count, _norm(before), _norm(updates), contribution])


def kept(weights: Iterable[Any]) -> list[Any]:
    """Copies of weights, in float32."""
    return [ops.copy(_wide(weight)) for weight in weights]


def unmeasured() -> Any:
    """The column of a group that took no part."""
    return ops.convert_to_tensor([-1.0] * len(STATISTICS), dtype="float32")


def _norm(tensors: Iterable[Any]) -> Any:
    return ops.sqrt(ops.sum(ops.stack([ops.sum(ops.square(_wide(t))) for t in tensors])))


def _wide(t: Any) -> Any:
    return ops.cast(ops.convert_to_tensor(t), "float32")
