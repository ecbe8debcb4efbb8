"""Any callable of one of the three shapes as a method: one's own, or an aggregator of another library.

What it returns is checked. What it remembers is its own business: it is in no state of the balancer's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise._spelling import shown
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.errors import BalanceError

_THEIRS = {"Aggregator": "FromJacobian", "Weighting": "FromGramian"}
"""Where TorchJD's classes belong: an aggregator takes a Gramian too, without a word, and its [t] are no weights."""


@final
@dataclass(frozen=True)
class FromLosses(LossMethod):
    """The weights `function(losses)`: [t] losses, detached float64 on the CPU, to [t] weights."""

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        _require_callable(self, self.function)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] finite. Raises `BalanceError` naming the callable for anything else."""
        return _weights(self, self.function, losses, context)


@final
@dataclass(frozen=True)
class FromGramian(GramianMethod):
    """The weights `function(gramian)`: [t, t] float64 on the CPU to [t] weights; TorchJD's weightings are of this
    shape."""

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        _require_callable(self, self.function)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] finite. Raises `BalanceError` naming the callable for anything else."""
        return _weights(self, self.function, gramian, context)


@final
@dataclass(frozen=True)
class FromJacobian(JacobianMethod):
    """The update `function(jacobian)`: [t, n] in its dtype and on its device to [n]; TorchJD's aggregators are of this
    shape."""

    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        _require_callable(self, self.function)

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n] finite. Raises `BalanceError` naming the callable for anything else."""
        made = _called(self, self.function, jacobian, (jacobian.shape[1],), "[n] update")
        if not bool(made.isfinite().all()):
            raise BalanceError(
                f"{_named(self, self.function)} gave an update that is not finite, for gradients that are"
            )
        return made.to(jacobian)


def _weights(method: Method, function: Callable[[Tensor], Tensor], given: Tensor, context: MethodContext) -> Tensor:
    made = _called(method, function, given, (len(context.tasks),), "[t] weights").to(device="cpu", dtype=torch.float64)
    for task, weight in zip(context.tasks, made.tolist(), strict=True):
        if not abs(weight) < float("inf"):
            raise BalanceError(f"{_named(method, function)} gave task {task!r} the weight {weight}")
    return made


def _called(
    method: Method, function: Callable[[Tensor], Tensor], given: Tensor, shape: tuple[int, ...], what: str
) -> Tensor:
    with torch.no_grad():
        made: object = function(given)
    if not isinstance(made, Tensor):
        raise BalanceError(f"{_named(method, function)} returned {shown(made)}, not a tensor of {what}")
    if made.shape != shape:
        raise BalanceError(
            f"{_named(method, function)} returned the shape {list(made.shape)} for {list(given.shape)}; "
            f"its {what} have the shape {list(shape)}"
        )
    return made.detach()


def _named(method: Method, function: object) -> str:
    """`FromGramian(softmax)`."""
    return f"{method.name}({getattr(function, '__name__', type(function).__name__)})"


def _require_callable(method: Method, function: object) -> None:
    if not callable(function):
        raise BalanceError(f"{method.name}: {shown(function)} cannot be called")
    if isinstance(function, type):
        raise BalanceError(f"{method.name}: {function.__name__} is a class: write {function.__name__}(…)")
    if isinstance(function, Method):
        raise BalanceError(f"{method.name}: {function.name} is a method already: give it as it is")
    for cls in type(function).__mro__ if isinstance(function, torch.nn.Module) else ():
        fits = _THEIRS.get(cls.__name__, method.name) if cls.__module__.startswith("torchjd.") else method.name
        if fits != method.name:
            raise BalanceError(f"{method.name}: TorchJD's {type(function).__name__} is of another shape: use {fits}(…)")
