"""What every reduction does: one call of a balancer begins with it, and it finds the route to the gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple, TypeAlias

from torch import Tensor

from groupwise.balance.engine.finite import broken_among
from groupwise.balance.engine.graph import leaves_of
from groupwise.balance.engine.held_out import HeldOut
from groupwise.balance.engine.losses import differentiable
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.state import State
from groupwise.balance.engine.task_graph import TaskGraph, task_graph_of
from groupwise.errors import BalanceError

_NOTHING: Final = nullcontext()
Losses: TypeAlias = Mapping[str, Tensor]


class Batch(NamedTuple):
    """What one call was given.

    Attributes:
        losses: of the tasks that are present on this process; scalars that require grad.
        scale: the scaler's, as a 0-dim tensor; None without one.
        features: where to look instead of at the parameters.
    """

    losses: Losses
    scale: Tensor | None
    features: object = None


class Reduction(ABC):
    """One call, on a copy of the balancer's state.

    Args:
        state: the copy.
    """

    def __init__(self, state: State) -> None:
        self.state = state

    @abstractmethod
    def begin(self, call: str, needs_parameters: bool) -> None:
        """Look at the parameters as they are now. Raises `BalanceError`."""

    @property
    @abstractmethod
    def accumulate_exchanges(self) -> bool:
        """Whether ranks exchange anything at a micro-batch, as they do at every other call that differentiates."""

    def propagated(self, waiting: bool = True) -> AbstractContextManager[None]:
        """Inside, the other ranks, if they are `waiting` for this one, learn of an error on it."""
        return _NOTHING

    @abstractmethod
    def weighted(self, batch: Batch) -> tuple[Route, Losses]:
        """The route for weights that need no gradient; and the losses of the joint batch, as everywhere here."""

    @abstractmethod
    def probed(self, batch: Batch) -> tuple[Route, Losses]:
        """The route that takes the gradients by task, unless the method answers from its memory."""

    @abstractmethod
    def completed(self, batch: Batch) -> tuple[Route, Losses]:
        """The gradients of this batch added to those that are accumulated."""

    @abstractmethod
    def accumulate(self, batch: Batch) -> None:
        """Keep the gradients of a micro-batch."""

    @abstractmethod
    def held_out(self, losses: Losses) -> HeldOut:
        """The gradient of the joint held-out batch."""

    @abstractmethod
    def means(self, losses: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Losses that nothing is differentiated of, averaged over the ranks that have them."""

    @abstractmethod
    def given(self, losses: Losses, scaler: object) -> Batch:
        """The arguments of a call, checked. Raises `BalanceError` naming the task."""

    def differentiable(self, losses: Losses) -> dict[str, Tensor]:
        """Losses, checked."""
        return differentiable(losses)

    def remember_grads(self, losses: Losses, route: Route) -> None:
        """Take down every `.grad` that the route is about to write."""
        if self.state.undo is not None:
            self.state.undo.remember(route.written or leaves_of(losses.values()))

    def find_broken(self, batch: Batch) -> None:
        """Look at the gradients of the suspects without the scaler's scale."""
        suspects = self.state.suspects.intersection(batch.losses)
        if batch.scale is None or not suspects:
            return
        try:
            self.state.broken |= broken_among(self.task_graph(Batch(batch.losses, None)), suspects)
        except BalanceError:
            return  # a graph that gives no gradients by task

    def task_graph(self, batch: Batch) -> TaskGraph:
        """The losses with their graph. Raises `BalanceError` for one that cannot be balanced."""
        return task_graph_of(batch.losses, self.state.scope.candidates, batch.scale)

    def coefficients(self, tasks: Sequence[str]) -> Tensor:
        """[t] of the held-out losses. Raises `BalanceError` for a method that learns nothing from them."""
        method = self.state.method
        found = method.held_out(tasks)
        if found is None:
            raise BalanceError(f"{method.name} learns nothing from held-out losses; AutoLambda does")
        return found
