"""Every rank has a copy of the model (`DistributedDataParallel`): rows are local, and averaged before they are used."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from groupwise.balance.engine.cut import AUTO, cut
from groupwise.balance.engine.held_out import HeldOut, gradient_of
from groupwise.balance.engine.ranks.agreement import Agreement, Reach, require_everywhere
from groupwise.balance.engine.reduction.on_ranks import OnRanks
from groupwise.balance.engine.reduction.reduction import Batch, Losses
from groupwise.balance.engine.routes.averaged_features import AveragedFeatures
from groupwise.balance.engine.routes.averaged_rows import AveragedLayer, averaged_rows, require_dense
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.sequential import passes
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.balance.method import JacobianMethod
from groupwise.errors import BalanceError


@final
class Replicated(OnRanks):
    """Ranks may have different tasks, or none."""

    def find_scope(self) -> None:
        self.state.scope = self.state.setup.places.now()

    @property
    def accumulate_exchanges(self) -> bool:
        return self.state.weighs_at_once

    @property
    def no_features(self) -> str:
        method = self.state.method
        return f"for {method.name} on several ranks" if isinstance(method, JacobianMethod) else ""

    def probed(self, batch: Batch) -> tuple[Route, Losses]:
        state, at_features = self.state, batch.features is not None or self.state.setup.route == "features"
        if at_features and state.held_out is None:
            return self._at_features(batch)
        with self.propagated():
            self.require_possible(batch.features)
            task_graph = self.task_graph(batch)
            self.find_broken(batch)
        agreed = self.agreed(batch.losses, _reach(task_graph), bool(task_graph.graph.sparse))
        if state.due(agreed.tasks) and state.scope.layer is None:
            rows = averaged_rows(self.ranks, agreed, passes(task_graph), state.buffers, self._columns(agreed))
            return rows, agreed.losses
        weighted = self.averaged(agreed, batch, task_graph)
        if state.scope.layer is None or not state.due(agreed.tasks):
            return weighted, agreed.losses
        layer = AveragedLayer(self.ranks, agreed, task_graph, state.scope.layer, state.buffers, weighted)
        return layer, agreed.losses

    def completed(self, batch: Batch) -> tuple[Route, Losses]:
        with self.propagated():
            self.require_possible(batch.features)
            sparse = self._add(batch)
            accumulated = self.state.accumulated
            self.ranks.broken = accumulated.broken
            rows = accumulated.by_task()
        agreed = self.agreed(accumulated.losses, rows, sparse)
        columns = self._columns(agreed)
        return averaged_rows(self.ranks, agreed, rows.items(), self.state.buffers, columns), agreed.losses

    def accumulate(self, batch: Batch) -> None:
        self._add(batch)

    def held_out(self, losses: Losses) -> HeldOut:
        with self.propagated():
            task_graph = self.task_graph(Batch(losses, None))
        agreed = self.ranks.agree(losses, _reach(task_graph), bool(task_graph.graph.sparse))
        if agreed.sparse:
            raise BalanceError("learn() does not average sparse gradients over ranks: use sparse=False")
        shares = self.coefficients(agreed.tasks) / torch.tensor(agreed.counts)
        found = gradient_of(losses, shares[[agreed.tasks.index(task) for task in losses]])
        sums = {leaf: found.pop(leaf) if leaf in found else torch.zeros_like(leaf) for leaf in agreed.reach}
        return HeldOut({**found, **dict(self.ranks.group.add_all(sums))})

    def find_broken(self, batch: Batch) -> None:
        super().find_broken(batch)
        self.ranks.broken = self.state.broken

    def remember_grads(self, losses: Losses, route: Route) -> None:
        super().remember_grads(losses, route)
        if self.state.undo is not None:
            self.state.undo.remember(self.ranks.leaves)

    def _add(self, batch: Batch) -> bool:
        """Keep a micro-batch's rows, which are this rank's own; whether it has sparse gradients."""
        self.find_broken(batch)
        task_graph = self.task_graph(batch)
        found = passes(task_graph)
        self.state.accumulated = self.state.accumulated.with_rows(batch.losses, found, self.state.broken)
        return bool(task_graph.graph.sparse)

    def _at_features(self, batch: Batch) -> tuple[Route, Losses]:
        with self.propagated():
            self.require_possible(batch.features)
            task_graph = self.task_graph(batch._replace(losses=dict(sorted(batch.losses.items()))))
            self.find_broken(batch)
            parted, edges = cut(task_graph, AUTO if batch.features is None else batch.features)
        agreed = self.agreed(batch.losses, _reach(task_graph), bool(task_graph.graph.sparse))
        if not self.state.due(agreed.tasks):
            return self.averaged(agreed, batch, task_graph), agreed.losses
        require_dense(agreed)
        require_everywhere(self.ranks, agreed, "for features on several ranks", "leave out features=")
        return AveragedFeatures(self.ranks, agreed, parted, edges, self.state.buffers), agreed.losses

    def _columns(self, agreed: Agreement) -> tuple[Tensor, ...] | None:
        """Those of a Jacobian method, which may remember them."""
        return self.state.columns_of(
            [leaf for leaf, tasks in agreed.reach.items() if len(tasks) > 1], len(agreed.tasks)
        )


def _reach(task_graph: TaskGraph) -> Reach:
    return {task: task_graph.graph.reached(i) for i, task in enumerate(task_graph.tasks)}
