"""One group's optimizer, as the update rule that it is.

Of a Keras optimizer only two things are borrowed: how it decays weights and how it updates them. Everything that
must happen once for all groups (dropping absent gradients, accumulation, clipping, averaging, loss scaling) stays with
the owner, so the borrowed one is never `apply`'d. Its learning rate is the owner's, which is a factor on every group,
times the group's own: a variable, as the rate of every Keras optimizer is, and not the product itself. Classes may
multiply by it without a cast (Muon), which a backend's own tensors of two precisions refuse or round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras

from groupwise.keras._keras import count_update, decay_weights, dtype_of, update
from groupwise.keras.algorithms import KerasAlgorithms
from groupwise.keras.building import built, peaks, untracked
from groupwise.keras.freezing import Span
from groupwise.keras.hyperparameters import GroupValues, scalar
from groupwise.keras.measured_rate import MeasuredRate, measured_rate
from groupwise.plan import Group

ops = keras.ops


@final
@dataclass(frozen=True, eq=False)
class Engine:
    """A group at work: its optimizer and the rate that this reads, when it trains, what it can be given.

    Args:
        unlisted: state that the optimizer holds and does not list among its `variables`.
        measured: what its rate follows; None where that is declared.
    """

    group: Group
    optimizer: Any
    rate: Any
    span: Span
    values: GroupValues
    hyperparameters: Mapping[str, Any]
    unlisted: tuple[Any, ...]
    measured: MeasuredRate | None

    @property
    def state(self) -> list[Any]:
        """All that its optimizer carries from one update to the next, in a fixed order."""
        return [*self.optimizer.variables, *self.unlisted, *(self.measured.state if self.measured else ())]

    def set_rate(self, factor: Any) -> None:
        """Have its optimizer read the group's own rate times `factor`."""
        if self.rate is not None:
            self.rate.assign(ops.multiply(factor, self.hyperparameters["learning_rate"]))

    def step(
        self, gradients: Sequence[Any], variables: Sequence[Any], trains: Any, share: Callable[[Any], Any]
    ) -> None:
        """Decay and update `variables`; where `trains` (a boolean tensor, or None for always) is false, undo it.

        Args:
            share: what of a gradient is this device's part of the sum over all.
        """
        touched = () if trains is None else (*variables, *self.state)
        kept = [(variable, ops.copy(ops.convert_to_tensor(variable))) for variable in touched]
        if self.measured is None:
            decay_weights(self.optimizer, variables)
            update(self.optimizer, [share(gradient) for gradient in gradients], variables)
        else:
            self.measured.step(self.optimizer, self.rate, gradients, variables, share)
        count_update(self.optimizer)
        for variable, before in kept:
            variable.assign(ops.where(trains, ops.convert_to_tensor(variable), before))


def engine(
    group: Group,
    index: int,
    variables: Sequence[Any],
    algorithms: KerasAlgorithms,
    span: Span,
    hyperparameters: Mapping[str, Any],
    live: Collection[str],
) -> Engine:
    """A group's optimizer, built for `variables`.

    Args:
        index: its place among the groups; it names its variables, so that names are unique and stable.
        hyperparameters: the variables that hold the declared numbers.
        live: those of them that the step reads; the others are Python numbers to the class.
    """
    cls = algorithms.class_of(str(group.algorithm))
    optimizer = built(cls, peaks(group.settings), f"group_{index}")
    own = hyperparameters.get("learning_rate")
    rate = None if own is None else scalar(0.0, f"rate_{index}", dtype_of(own))
    if rate is not None:
        optimizer.learning_rate = lambda: rate  # a variable itself would be read once
    put(optimizer, {name: hyperparameters[name] for name in hyperparameters if name in live})
    optimizer.build(list(variables))
    values = GroupValues(group.name, hyperparameters, live, group.settings)
    unlisted = untracked(optimizer, [*variables, *hyperparameters.values()])
    return Engine(group, optimizer, rate, span, values, hyperparameters, unlisted, measured_rate(group, index))


def put(optimizer: Any, hyperparameters: Mapping[str, Any]) -> None:
    """Put variables in the place of an optimizer's numbers; the learning rate has a place of its own."""
    for name, variable in hyperparameters.items():
        if name != "learning_rate":
            object.__setattr__(optimizer, name, variable)  # not through Keras, which would make it the optimizer's own
