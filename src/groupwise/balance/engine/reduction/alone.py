"""One process. Every route is there; `route="auto"` is decided here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from groupwise.balance.engine.accumulated import Accumulated
from groupwise.balance.engine.cut import AUTO, cut
from groupwise.balance.engine.held_out import HeldOut, gradient_of
from groupwise.balance.engine.losses import values
from groupwise.balance.engine.ranks.process_group import require_single
from groupwise.balance.engine.reduction.reduction import Batch, Losses, Reduction
from groupwise.balance.engine.routes.features import Features
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.sequential import passes, sequential
from groupwise.balance.engine.routes.weighted import Weighted
from groupwise.balance.engine.routes.without_rows import Batched, Layer
from groupwise.balance.engine.rows import Buffers
from groupwise.balance.engine.scaling import scale_of
from groupwise.balance.engine.task_graph import TaskGraph
from groupwise.errors import BalanceError


@final
class Alone(Reduction):
    """The batch of this process is the joint batch."""

    def begin(self, call: str, needs_parameters: bool) -> None:
        if needs_parameters:
            require_single(self.state.setup.alone)
            self.state.scope = self.state.setup.places.now()

    @property
    def accumulate_exchanges(self) -> bool:
        return False

    def given(self, losses: Losses, scaler: object) -> Batch:
        checked = self.differentiable(losses)
        self.state.expect(checked)
        return Batch(checked, scale_of(scaler, next(iter(checked.values()))))

    def weighted(self, batch: Batch) -> tuple[Route, Losses]:
        self.find_broken(batch)
        return self._weighted(batch)

    def probed(self, batch: Batch) -> tuple[Route, Losses]:
        self.find_broken(batch)
        if not self.state.due(tuple(batch.losses)):
            return self._weighted(batch)
        with self._whole_graph(batch) as task_graph:
            if self.state.held_out is not None:
                return sequential(task_graph, self.state.buffers, None), batch.losses
            return self._route(task_graph, batch.features), batch.losses

    def completed(self, batch: Batch) -> tuple[Route, Losses]:
        self.accumulate(batch)
        whole, self.state.accumulated = self.state.accumulated, Accumulated()
        self.state.broken = whole.broken
        shared = whole.shared(self.state.scope.candidates)
        columns = self.state.columns_of(shared, len(whole.losses))
        return whole.finalize(shared if columns is None else columns), whole.losses

    def accumulate(self, batch: Batch) -> None:
        self.find_broken(batch)
        with self._whole_graph(batch) as task_graph:
            found = passes(task_graph)
            self.state.accumulated = self.state.accumulated.with_rows(batch.losses, found, self.state.broken)

    def held_out(self, losses: Losses) -> HeldOut:
        return HeldOut(gradient_of(losses, self.coefficients(tuple(losses))))

    def means(self, losses: Mapping[str, Tensor | float]) -> dict[str, float]:
        return values(losses)

    def _weighted(self, batch: Batch) -> tuple[Route, Losses]:
        task_graph = None if self.state.setup.weighted else self.task_graph(batch)
        return Weighted(batch.losses, batch.scale, task_graph), batch.losses

    def _route(self, task_graph: TaskGraph, features: object) -> Route:
        route, layer = self.state.setup.route, self.state.scope.layer
        columns = self.state.columns_of(task_graph.shared, len(task_graph.tasks))
        if not task_graph.shared and features is None and layer is None:
            return sequential(task_graph, self.state.buffers, columns)  # a trunk that is frozen: nothing to look at
        if features is not None or route == "features":
            place = AUTO if features is None else features
            return Features(*cut(task_graph, place), self.state.buffers, isinstance(place, str))
        if layer is not None:
            return Layer(task_graph, layer)
        if route == "gramian" or (route == "auto" and columns is None and not _fit(task_graph, self.state.buffers)):
            return Batched(task_graph)
        return sequential(task_graph, self.state.buffers, columns)

    @contextmanager
    def _whole_graph(self, batch: Batch) -> Iterator[TaskGraph]:
        """The graph, looked at again after its backwards: a root that was never resharded shows itself only then."""
        task_graph = self.task_graph(batch)
        _require_whole(task_graph)
        yield task_graph
        _require_whole(task_graph)


def _fit(task_graph: TaskGraph, buffers: Buffers) -> bool:
    """Whether the rows have a place: they do if they had one before, or if that is not known."""
    on_device = [leaf for leaf in task_graph.shared if leaf.is_cuda]
    if not on_device or buffers.held:
        return True
    device = on_device[0].device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return len(task_graph.tasks) * sum(leaf.numel() * leaf.element_size() for leaf in on_device) < 0.8 * free


def _require_whole(task_graph: TaskGraph) -> None:
    """Raise `BalanceError` where the leaves are the passing copies that `fully_shard` makes."""
    if "torch.distributed.fsdp" not in sys.modules:
        return
    plain = (leaf for leaf in task_graph.graph.leaves if leaf.numel() and leaf.layout == torch.strided)
    if task_graph.graph.sharded or any(leaf.untyped_storage().size() == 0 for leaf in plain):
        raise BalanceError(
            "the parameters belong to fully_shard, and their gradients to its copies, which are gone after a backward: "
            "pass parameters= the outermost fully_shard module"
        )
