"""Methods made comparable: the direction of one, the length of the mean gradient.

Methods hide factors in the length of their updates (a sum or a mean, a division by 1 + c, a clip), so at one learning
rate they differ by more than their directions. Behind this wrapper they differ by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from groupwise._pickling import as_public
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, Method, MethodContext
from groupwise.balance.methods.around import Around, inside, shape_of
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

_KEPT = frozenset({Property.EQUIVARIANT, Property.NON_CONFLICTING, Property.MEMORYLESS, Property.DETERMINISTIC})
_HOMOGENEOUS = frozenset({Property.HOMOGENEOUS, Property.SCALE_FREE})


@dataclass(frozen=True, repr=False)
class Normalized(Around):
    """d |g0| / |d|, d the inner method's update and g0 the mean of the tasks' gradients; 0 where d is.

    Scale: the length of the mean gradient, whatever the inner method's. A loss method has no gradients to measure.
    """

    name: ClassVar[str] = "Normalized"  # for either shape

    def __new__(cls, method: Method | None = None) -> Normalized:
        """One of the two shapes; without arguments (a copy is being made) the class itself."""
        return object.__new__(_SHAPES.get(shape_of(method), cls))

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self) is Normalized:
            raise BalanceError(
                f"Normalized: {self.method.name} looks at losses alone, and the length of its update is not known; "
                "give a method that looks at gradients"
            )

    @property
    def properties(self) -> frozenset[Property]:
        """The inner method's properties of the direction; the length is homogeneous."""
        follows = {Property.HOMOGENEOUS} if self.method.properties & _HOMOGENEOUS else set()
        return (self.method.properties & _KEPT) | follows | {Property.SINGLE}

    def __repr__(self) -> str:
        return f"Normalized({self.method!r})"


@final
class _OfGramian(Normalized, GramianMethod):
    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the inner method's, times one number."""
        inner: Callable[..., Tensor] = self.method.weights  # type: ignore[attr-defined]
        weights = inner(gramian, context, inside(memory))
        mean, length = gramian.mean().clamp(min=0).sqrt(), (weights @ gramian @ weights).clamp(min=0).sqrt()
        return weights * (mean / length if bool(length > 0) else 0.0)


@final
class _OfJacobian(Normalized, JacobianMethod):
    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n] the inner method's, times one number."""
        inner: Callable[..., Tensor] = self.method.update  # type: ignore[attr-defined]
        update = inner(jacobian, context, inside(memory))
        mean, length = torch.linalg.vector_norm(jacobian.mean(0)), torch.linalg.vector_norm(update)
        return torch.where(length > 0, update * (mean / length), 0.0)


_SHAPES: dict[Any, type[Normalized]] = {GramianMethod: _OfGramian, JacobianMethod: _OfJacobian}
for _shape in _SHAPES.values():
    as_public(_shape, "groupwise.balance:Normalized")
