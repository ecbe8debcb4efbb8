"""Weights that do not jump: the moving average of another method's.

A method that solves a small problem at every batch returns weights that depend on the batch, and then the expected
update is not the one for the expected gradients. Averaged over time they hardly do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from groupwise._pickling import as_public
from groupwise.balance.arguments import Fraction
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods.around import Around, inside, shape_of
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

_KEPT = frozenset({Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})


@dataclass(frozen=True, repr=False)
class Smoothed(Around):
    """w <- rate w + (1 - rate) w', w' the inner method's weights (CR-MOGM: Zhou et al. 2022, NeurIPS).

    The average is kept by task and starts at the first weight that the task gets. The inner method's
    property about conflicts does not hold of the average. Jacobian methods have no weights to smooth.

    Scale: the inner method's.

    Args:
        rate: how much of the average stays; 0 smooths nothing.
    """

    rate: Fraction = 0.9

    name: ClassVar[str] = "Smoothed"  # for either shape

    def __new__(cls, method: Method | None = None, rate: float = 0.9) -> Smoothed:
        """One of the two shapes; without arguments (a copy is being made) the class itself."""
        return object.__new__(_SHAPES.get(shape_of(method), cls))

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self) is Smoothed:
            raise BalanceError(f"Smoothed: {self.method.name} makes an update, and there are no weights to smooth")

    @property
    def properties(self) -> frozenset[Property]:
        """What an average does not undo."""
        return self.method.properties & _KEPT

    def __repr__(self) -> str:
        return f"Smoothed({self.method!r}, rate={self.rate})"

    def _smoothed(self, now: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        new = ~memory.has_tasks(_AVERAGE, context.tasks)
        average = memory.of_tasks(_AVERAGE, context.tasks, 0.0)
        average = now.where(new, self.rate * average + (1 - self.rate) * now)
        memory.keep_tasks(_AVERAGE, context.tasks, average)
        return average


@final
class _OfLosses(Smoothed, LossMethod):
    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the averages."""
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        return self._smoothed(inner(losses, context, inside(memory)), context, memory)


@final
class _OfGramian(Smoothed, GramianMethod):
    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the averages."""
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        return self._smoothed(inner(gramian, context, inside(memory)), context, memory)


_AVERAGE = "average weight"
_SHAPES: dict[Any, type[Smoothed]] = {LossMethod: _OfLosses, GramianMethod: _OfGramian}
for _shape in _SHAPES.values():
    as_public(_shape, "groupwise.balance:Smoothed")
