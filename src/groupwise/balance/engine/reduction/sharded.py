"""Every rank has a part of each parameter (`fully_shard`), and so of each task's row.

A backward has collectives of its own, in an order that the graph gives: every rank needs every task.
"""

from __future__ import annotations

from typing import final

from groupwise.balance.engine.held_out import HeldOut
from groupwise.balance.engine.places import Scope
from groupwise.balance.engine.ranks.agreement import NOWHERE, Agreement, Ranks, Reach, require_everywhere
from groupwise.balance.engine.ranks.parts import Parts
from groupwise.balance.engine.reduction.on_ranks import OnRanks
from groupwise.balance.engine.reduction.reduction import Batch, Losses
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.sharded_rows import ShardedRows
from groupwise.balance.engine.state import State
from groupwise.errors import BalanceError


@final
class Sharded(OnRanks):
    """Rows are kept as parts; `parts` gives them."""

    def __init__(self, state: State, ranks: Ranks, parts: Parts) -> None:
        super().__init__(state, ranks)
        self._parts = parts

    def find_scope(self) -> None:
        self.state.scope = Scope(None, self.state.setup.places.now().layer)  # the graph knows the unsharded ones alone

    @property
    def accumulate_exchanges(self) -> bool:
        return True

    @property
    def no_features(self) -> str:
        return "under fully_shard"

    def require_possible(self, features: object) -> None:
        super().require_possible(features)
        if self.state.scope.layer is not None:
            raise BalanceError("at= is not there under fully_shard: without it, all that is shared is looked at")

    def probed(self, batch: Batch) -> tuple[Route, Losses]:
        ordered = self._everywhere(batch)
        if not self.state.due(tuple(ordered.losses)):
            return self.weighted(ordered)
        return self._rows(ordered)

    def completed(self, batch: Batch) -> tuple[Route, Losses]:
        return self._rows(self._everywhere(batch))

    def accumulate(self, batch: Batch) -> None:
        self._add(self._everywhere(batch))

    def held_out(self, losses: Losses) -> HeldOut:
        raise BalanceError("learn() is not there under fully_shard: it compares whole gradients, as DDP has them")

    def agreed(self, losses: Losses, reach: Reach = NOWHERE, sparse: bool = False) -> Agreement:
        found = super().agreed(losses, reach, sparse)
        require_everywhere(self.ranks, found, "under fully_shard", "DistributedDataParallel")
        return found

    def find_broken(self, batch: Batch) -> None:
        """Nothing: no rank has whole gradients to look at."""

    def remember_grads(self, losses: Losses, route: Route) -> None:
        super().remember_grads(losses, route)
        self._remember_parts()

    def _remember_parts(self) -> None:
        if self.state.undo is not None:
            self.state.undo.remember(self._parts.whole)

    def _rows(self, batch: Batch) -> tuple[Route, Losses]:
        self._add(batch)
        accumulated = self.state.accumulated
        joint = self.ranks.agree(accumulated.losses).losses
        rows = accumulated.finalize(accumulated.shared(None))
        route = ShardedRows(self.ranks, self._parts, rows, accumulated.passes)
        return route, {task: joint[task] for task in accumulated.losses}

    def _add(self, batch: Batch) -> None:
        self._remember_parts()
        found = self._parts.passes(self.task_graph(batch))
        self.state.accumulated = self.state.accumulated.with_rows(batch.losses, found, frozenset())

    def _everywhere(self, batch: Batch) -> Batch:
        """The losses in the order of all ranks. Raises `BalanceError`, on every rank, for a task that some lack."""
        with self.propagated():
            self.require_possible(batch.features)
            self.task_graph(batch)  # what cannot be balanced is found before any rank waits in a backward
        agreed = self.agreed(batch.losses)
        return batch._replace(losses={task: batch.losses[task] for task in agreed.tasks})
