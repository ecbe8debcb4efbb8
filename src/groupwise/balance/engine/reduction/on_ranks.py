"""What both reductions over several ranks share: all agree on a batch before anything is decided."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from groupwise.balance.engine.losses import values
from groupwise.balance.engine.ranks.agreement import NOWHERE, Agreement, Ranks, Reach, propagated
from groupwise.balance.engine.ranks.marks import digest
from groupwise.balance.engine.reduction.reduction import Batch, Losses, Reduction
from groupwise.balance.engine.routes.averaged import Averaged
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.scaling import scale_of
from groupwise.balance.engine.state import State
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.errors import BalanceError


class OnRanks(Reduction):
    """One call on several ranks.

    Args:
        state: the copy.
        ranks: the processes.
    """

    def __init__(self, state: State, ranks: Ranks) -> None:
        super().__init__(state)
        self.ranks = ranks

    def begin(self, call: str, needs_parameters: bool) -> None:
        state = self.state
        draws = {str(i): g.get_state() for i, g in enumerate([state.memory.generator, *state.setup.generators])}
        now = {"call": call, "step": str(state.step), "epoch": str(state.epoch), "draws": f"{digest(draws):x}"}
        self.ranks.begin({**state.setup.shared_settings, **now, "loaded state": f"{state.loaded:x}"})
        if needs_parameters:
            self.find_scope()

    @abstractmethod
    def find_scope(self) -> None:
        """Find what `parameters=` and `at=` stand for."""

    @contextmanager
    def propagated(self, waiting: bool = True) -> Iterator[None]:
        with propagated(self.ranks if waiting else None):
            yield

    def given(self, losses: Losses, scaler: object) -> Batch:
        return Batch(self.differentiable(losses), scale_of(scaler, self.ranks.like))

    def differentiable(self, losses: Losses) -> dict[str, Tensor]:
        return {} if _none(losses) else super().differentiable(losses)

    def means(self, losses: Mapping[str, Tensor | float]) -> dict[str, float]:
        with self.propagated():
            here = {} if _none(losses) else values(losses)
        numbers = {task: torch.tensor(loss, dtype=torch.float64) for task, loss in here.items()}
        return {task: float(loss) for task, loss in self.ranks.agree(numbers).losses.items()}

    def weighted(self, batch: Batch) -> tuple[Route, Losses]:
        with self.propagated():
            self.require_possible(batch.features)
            self.find_broken(batch)
            task_graph = None if self.state.setup.weighted else self.task_graph(batch)
        agreed = self.agreed(batch.losses)
        return self.averaged(agreed, batch, task_graph), agreed.losses

    def averaged(self, agreed: Agreement, batch: Batch, task_graph: TaskGraph | None) -> Averaged:
        """The weighted backward of the tasks that were agreed on."""
        apart = None if self.state.setup.weighted else task_graph
        return Averaged(self.ranks, agreed, batch.losses, batch.scale, apart, self.state.scope.candidates)

    def agreed(self, losses: Losses, reach: Reach = NOWHERE, sparse: bool = False) -> Agreement:
        """What all ranks know of this batch. Raises `BalanceError`, on every rank."""
        found = self.ranks.agree(losses, reach, sparse)
        self.state.expect(found.tasks)
        self.state.broken = found.broken
        return found

    def require_possible(self, features: object) -> None:
        """Raise `BalanceError` for what one process can and several cannot."""
        if self.state.setup.route == "gramian":
            raise BalanceError('route="gramian" is not there on several ranks; "sequential" and "features" are')
        if (features is not None or self.state.setup.route == "features") and (why := self.no_features):
            raise BalanceError(f"the features route is not there {why}: leave out features=")

    @property
    @abstractmethod
    def no_features(self) -> str:
        """Where the features route is not there; empty where it is."""


def _none(losses: object) -> bool:
    """Whether there are no losses here, as may be on some of several ranks."""
    return isinstance(losses, Mapping) and not losses
