"""A floor and a ceiling for weights that a method finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from groupwise._pickling import as_public
from groupwise.balance.arguments import NonNegative, Positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods.around import Around, inside, shape_of
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

_KEPT = frozenset(
    {Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.MEMORYLESS, Property.DETERMINISTIC, Property.SEPARATE}
)


@dataclass(frozen=True, repr=False)
class Bounded(Around):
    """w <- min(max(w, least), most), w the inner method's weights; nothing is renormalised.

    Learnt weights grow without end where a loss goes to 0 (`Uncertainty` settles at 1 / (2 L), `LogSum` at 1 / L): a
    ceiling keeps one solved task from setting the step. The inner method's own state is not bounded. Jacobian methods
    have no weights to bound.

    Scale: the inner method's, at most `most` times a gradient.

    Args:
        most: the ceiling.
        least: the floor; at most `most`.

    Raises:
        BalanceError: a floor above the ceiling, or a method without weights.

    Example:
        >>> Bounded(LogSum(), most=20.0)(torch.tensor([2.0, 0.001]))
        tensor([ 0.5000, 20.0000], dtype=torch.float64)
    """

    most: Positive
    least: NonNegative = 0.0

    name: ClassVar[str] = "Bounded"  # for either shape

    def __new__(cls, method: Method | None = None, most: float = 1.0, least: float = 0.0) -> Bounded:
        """One of the two shapes; without arguments (a copy is being made) the class itself."""
        return object.__new__(_SHAPES.get(shape_of(method), cls))

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self) is Bounded:
            raise BalanceError(f"Bounded: {self.method.name} makes an update, and there are no weights to bound")
        if self.least > self.most:
            raise BalanceError(f"Bounded: least={self.least:g} is above most={self.most:g}")

    @property
    def properties(self) -> frozenset[Property]:
        """What bounds do not undo: weights that follow the scale of the losses are cut at another place."""
        homogeneous = {Property.HOMOGENEOUS} if isinstance(self.method, LossMethod) else set()
        return self.method.properties & (_KEPT - homogeneous)

    def __repr__(self) -> str:
        return f"Bounded({self.method!r}, most={self.most}, least={self.least})"


@final
class _OfLosses(Bounded, LossMethod):
    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] in [least, most]."""
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        return inner(losses, context, inside(memory)).clamp(self.least, self.most)


@final
class _OfGramian(Bounded, GramianMethod):
    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] in [least, most]."""
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        return inner(gramian, context, inside(memory)).clamp(self.least, self.most)


_SHAPES: dict[Any, type[Bounded]] = {LossMethod: _OfLosses, GramianMethod: _OfGramian}
for _shape in _SHAPES.values():
    as_public(_shape, "groupwise.balance:Bounded")
