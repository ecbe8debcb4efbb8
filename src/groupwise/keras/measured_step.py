"""A model's training step while an observer looks at it.

Whether a step measures is decided when it is compiled, and Keras keeps what it compiled for every later fit. A fit that
is interrupted calls no callback. So the step that measures stands in for the model's own only as long as it is asked,
step by step: by each batch that an observer sees begin. The first batch that nobody asks it for, of whatever fit, takes
it out, and has the model compile a step of its own.
"""

from __future__ import annotations

from typing import Any, final

from groupwise.keras.grouped_optimizer import GroupedOptimizer


@final
class MeasuredStep:
    """What stands in for `model.train_function`; it measures one step each time that it was asked to."""

    def __init__(self, model: Any, optimizer: GroupedOptimizer, function: Any) -> None:
        self._model, self._optimizer, self._function = model, optimizer, function
        self._asked_in: Any = None

    @staticmethod
    def of(model: Any, optimizer: GroupedOptimizer) -> MeasuredStep:
        """The one that stands in for the model's step from here on; compiled anew unless it does so already."""
        standing = model.train_function
        if isinstance(standing, MeasuredStep):
            return standing
        model.train_function = standing = None  # jax would take a step that is alive for the new one
        model.make_train_function()
        model.train_function = measured = MeasuredStep(model, optimizer, model.train_function)
        return measured

    def ask(self) -> None:
        """Have the next step measured, if it is one of this fit."""
        self._asked_in = (self._fit(),)

    def __call__(self, *arguments: Any) -> Any:
        """One step, or several in one execution."""
        asked_in, self._asked_in = self._asked_in, None
        if asked_in is None or asked_in[0] is not self._fit():
            return self._own(arguments)
        before = self._optimizer.measuring
        self._optimizer.measuring = True
        try:
            return self._function(*arguments)
        finally:
            self._optimizer.measuring = before

    def _fit(self) -> Any:
        """What each fit has of its own: where Keras keeps its history."""
        return getattr(self._model, "history", None)

    def _own(self, arguments: tuple[Any, ...]) -> Any:
        """The model's own step, in its place again."""
        if self._model.train_function is self:
            self._function = self._model.train_function = None
            self._model.make_train_function()
        return self._model.train_function(*arguments)
