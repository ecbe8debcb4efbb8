"""A compiled step that is older than the model it trains.

tensorflow traces a step with the variables that train at that time, and Keras keeps it until the model is compiled
again. After `enable_lora`, or a change of `layer.trainable`, `fit` goes on with it: what was added does not train, what
was frozen does. (torch traces nothing, and jax refuses.) An optimizer is not called by a step that is traced already.
But Keras shows it what trains at the end of each fit, and an optimizer sees each trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras

from groupwise.errors import listed
from groupwise.keras._keras import path_of

_SHOWN = 3


@final
class Staleness:
    """Compares what trains at the end of a fit with what did when the step was traced."""

    def __init__(self) -> None:
        self._traced = False
        self._trained: dict[int, str] = {}

    def stepped(self) -> None:
        """Note that a step runs, or is being traced, with the model as it is now."""
        self._traced = True

    def fitted(self, variables: Sequence[Any]) -> str:
        """What is to be said after a fit of a model that trains `variables`; empty if all is well."""
        trains = {id(variable): path_of(variable) for variable in variables}
        before, self._trained = self._trained, trains
        traced, self._traced = self._traced, False
        if traced or not before or keras.backend.backend() != "tensorflow":
            return ""
        added = [path for key, path in trains.items() if key not in before]
        gone = [path for key, path in before.items() if key not in trains]
        told = [f"{listed(added, _SHOWN)} did not train"] if added else []
        told += [f"{listed(gone, _SHOWN)} trained on, frozen or not"] if gone else []
        if not told:
            return ""
        return (
            f"this fit ran the step that was compiled before layers were changed (layer.trainable, enable_lora): "
            f"{' and '.join(told)}. After such a change: model.compile(GroupedOptimizer(plan, …).bind(model), …)"
        )
