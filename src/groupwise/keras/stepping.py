"""One update, group by group: clip, then decay and update, and measure while somebody looks.

Under a strategy of tensorflow each device has the gradients of its part of the batch, and Keras sums them over the
devices when it updates, after clipping. A norm is one of the whole batch, so where one is asked for the gradients are
summed before, and each device hands on its share, 1/n, of what they were clipped to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras

from groupwise.keras._keras import devices_of_step, summed_over_devices
from groupwise.keras.engine import Engine
from groupwise.keras.measuring import column, kept, unmeasured
from groupwise.keras.program import Program


@final
class Update:
    """The part of a step that Keras' hooks share: which variables take part, and their gradients before clipping.

    Args:
        program: the groups at work.
        step: the number of this update, an integer tensor of shape [].
        variables: those that have a gradient.
        positions: theirs in the build.
        measuring: whether the step tells its norms.
    """

    def __init__(
        self, program: Program, step: Any, variables: Sequence[Any], positions: Sequence[int], measuring: bool
    ) -> None:
        self._program = program
        self._measuring = measuring
        self._devices = 1
        self._variables = tuple(variables)
        self._positions = tuple(positions)
        self._unclipped: tuple[Any, ...] = ()
        spans = {engine: None if engine.span.always else engine.span.at(step) for engine in program.engines}
        self._trains = spans

    def clip(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients as the plan clips them; those of groups that never train are left as they are."""
        if self._measuring or self._program.follows_gradients or not self._program.clipper.idle:
            self._devices, gradients = devices_of_step(), summed_over_devices(gradients)
        self._unclipped = tuple(gradients)
        clipped = list(gradients)
        if self._program.clipper.idle:
            return clipped
        shares = [(engine, i) for engine, indices in self._program.split(self._positions) for i in indices]
        active = [(self._trains[engine], i) for engine, i in shares if engine is not None]
        names = [self._program.names[self._positions[i]] for _, i in active]
        weights = [self._variables[i] for _, i in active]
        found = self._program.clipper.clip(names, [gradients[i] for _, i in active], weights, [on for on, _ in active])
        for (_, i), gradient in zip(active, found, strict=True):
            clipped[i] = gradient
        return clipped

    def apply(self, gradients: Sequence[Any]) -> None:
        """Let each group's optimizer update its variables with the clipped `gradients`."""
        columns: dict[Engine, Any] = {}
        for engine, indices in self._program.split(self._positions):
            if engine is None:
                continue
            own, clipped = [self._variables[i] for i in indices], [gradients[i] for i in indices]
            before = kept(own) if self._measuring else []
            engine.step(clipped, own, self._trains[engine], self._share)
            if self._measuring:
                missing = len(engine.group.parameters) - len(own)
                columns[engine] = column([self._unclipped[i] for i in indices], clipped, before, own, missing)
        if columns:
            found = [columns[engine] if engine in columns else unmeasured() for engine in self._program.engines]
            self._program.measured.assign(keras.ops.stack(found, axis=1))

    def _share(self, gradient: Any) -> Any:
        """What one device adds to the sum over all."""
        return gradient if self._devices == 1 else keras.ops.multiply(gradient, 1 / self._devices)
