"""One loss of one task, as `compile` takes it: a name, a function or a `keras.losses.Loss`.

Keras' own `compile` turns a function into a loss that brings targets and predictions to one rank first, as in (n,) and
(n, 1), and averages over the samples; that class is not public, so its two lines stand here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import keras


def loss_of(given: Any) -> Any:
    """A loss that gives a scalar. Whatever Keras cannot read it refuses itself, with a `ValueError`."""
    found = keras.losses.get(given)
    return found if isinstance(found, keras.losses.Loss) else _OfFunction(found)


@final
class _OfFunction(keras.losses.Loss):  # type: ignore[misc]  # keras has no types
    """The mean over samples of a function of targets and predictions."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name=getattr(function, "__name__", None))
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The function's values, one for each sample."""
        y_true, y_pred = keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred)
        if len(y_true.shape) == len(y_pred.shape) + 1 and y_true.shape[-1] == 1:
            y_true = keras.ops.squeeze(y_true, axis=-1)
        elif len(y_pred.shape) == len(y_true.shape) + 1 and y_pred.shape[-1] == 1:
            y_pred = keras.ops.squeeze(y_pred, axis=-1)
        return self._function(y_true, y_pred)
