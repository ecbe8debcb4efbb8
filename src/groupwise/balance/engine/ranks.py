"""Several processes, each with a copy of the model and a part of the batch (`DistributedDataParallel`).

`torch.autograd.grad` does not run DDP's hooks, so rows are local. The gradient of a task's mean loss is the mean of the
ranks' gradients, over the ranks whose batch had the task; so rows and losses are averaged first, and the Gramian, the
weights and the update that follow are those of the joint batch, computed alike on every rank, bit by bit. A weighted
backward runs DDP's hooks, which average over *all* ranks: there the weight of a task that c of W ranks have is W / c.

Under `fully_shard` there is that backward alone: the gradients of one task are never there unsharded.

The order of everything is fixed: tasks by name, parameters as the module lists them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from groupwise.balance.engine.routes.route import OwnGradients, Route
from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.rows import Buffers, Rows
from groupwise.errors import BalanceError


@final
@dataclass(frozen=True, eq=False)
class Agreement:
    """What all ranks know of one batch.

    Attributes:
        tasks: those that some rank has, by name.
        losses: the mean of each over the ranks that have it, as 0-dim tensors on the device.
        counts: how many ranks have each.
        reach: for each parameter the tasks (their places) that reach it on some rank.
    """

    tasks: tuple[str, ...]
    losses: dict[str, Tensor]
    counts: tuple[int, ...]
    reach: dict[Tensor, set[int]]


@final
class Ranks:
    """The processes of one group, and the parameters that they have copies of."""

    def __init__(self, group: Any, leaves: Iterable[Tensor], sharded: bool = False) -> None:
        self._group = group
        self._leaves = [parameter for parameter in leaves if parameter.requires_grad and not sharded]
        self._names: list[str] = []
        self.size = dist.get_world_size(group)
        self.sharded = sharded

    def agree(self, losses: Mapping[str, Tensor], reach: Mapping[str, Collection[Tensor]]) -> Agreement:
        """Exchange which tasks there are, their losses and what they reach: one reduction, two when a task is new."""
        found = self._summed(losses, reach)
        if found[0]:
            gathered: list[list[str]] = [[] for _ in range(self.size)]
            dist.all_gather_object(gathered, [*losses], group=self._group)
            self._names = sorted({*self._names, *(name for names in gathered for name in names)})
            found = self._summed(losses, reach)
        table = torch.tensor(found[1:], dtype=torch.float64).view(len(self._names), 2 + len(self._leaves))
        here = [i for i in range(len(self._names)) if table[i, 0] > 0]
        tasks = tuple(self._names[i] for i in here)
        device = next(iter(losses.values())).device
        means = (table[here, 1] / table[here, 0]).to(device).unbind()
        reached = {
            leaf: {place for place, i in enumerate(here) if table[i, 2 + column] > 0}
            for column, leaf in enumerate(self._leaves)
        }
        counts = tuple(int(table[i, 0]) for i in here)
        return Agreement(tasks, dict(zip(tasks, means, strict=True)), counts, {k: v for k, v in reached.items() if v})

    def mean(self, pieces: Tensor) -> None:
        """Sum over the ranks, in place; each has divided by the count already."""
        dist.all_reduce(pieces, group=self._group)

    def _summed(self, losses: Mapping[str, Tensor], reach: Mapping[str, Collection[Tensor]]) -> list[float]:
        """Whether some rank has a task that is not known; then for each known task its count, sum and reach."""
        width = 2 + len(self._leaves)
        vector = torch.zeros(1 + width * len(self._names), dtype=torch.float64)
        vector[0] = float(any(task not in self._names for task in losses))
        starts = {task: 1 + i * width for i, task in enumerate(self._names) if task in losses}
        for task, start in starts.items():
            mine = set(reach.get(task, ()))
            vector[start : start + width] = torch.tensor([1.0, 0.0, *(float(leaf in mine) for leaf in self._leaves)])
        moved = vector.to(next(iter(losses.values())).device)
        for task, start in starts.items():
            moved[start + 1] = losses[task].detach()
        dist.all_reduce(moved, group=self._group)
        return [float(number) for number in moved.tolist()]


def ranks_of(parameters: object) -> Ranks | None:
    """Those of the `DistributedDataParallel` or `fully_shard` module in `parameters=`; None where there is none."""
    parts = [*parameters.values()] if isinstance(parameters, Mapping) else [parameters]
    modules = [part for part in parts if isinstance(part, nn.Module)]
    copied = [module for module in modules if isinstance(module, DistributedDataParallel)]
    if len(copied) > 1:
        raise BalanceError(f"parameters holds {len(copied)} DistributedDataParallel modules: wrap one that holds all")
    if copied and dist.get_world_size(copied[0].process_group) > 1:
        return Ranks(copied[0].process_group, copied[0].module.parameters())
    sharded = next((p for module in modules for p in module.parameters() if isinstance(p, DTensor)), None)
    return None if sharded is None or sharded.device_mesh.size() == 1 else Ranks(_group_of(sharded), (), sharded=True)


def _group_of(parameter: DTensor) -> Any:
    mesh = parameter.device_mesh
    return dist.group.WORLD if mesh.size() == dist.get_world_size() else mesh.get_group()


def require_told(ranks: Ranks | None, alone: bool) -> None:
    """Raise `BalanceError` where several processes run and nobody said how they belong together."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if several and ranks is None and not alone:
        raise BalanceError(
            f"{dist.get_world_size()} ranks are running, and their gradients have to be averaged before they are "
            "balanced: pass parameters= the DistributedDataParallel module (a loss method: or one under fully_shard); "
            'or ranks="alone" if each is for itself'
        )


def reduced(
    ranks: Ranks,
    losses: Mapping[str, Tensor],
    reach: Mapping[str, Collection[Tensor]],
    passes: Iterable[tuple[str, Mapping[Tensor, Tensor]]],
    buffers: Buffers,
) -> tuple[Rowwise, Agreement]:
    """The joint batch's rows, from the local gradients of each local task."""
    agreed = ranks.agree(losses, reach)
    needed = min(2, len(agreed.tasks))
    shared = {leaf: tasks for leaf, tasks in agreed.reach.items() if len(tasks) >= needed}
    lone = {leaf: tasks for leaf, tasks in agreed.reach.items() if leaf not in shared}
    rows = buffers.rows([*shared], len(agreed.tasks))
    places = {task: i for i, task in enumerate(agreed.tasks)}
    rows.blank([i for task, i in places.items() if task not in losses])
    own = OwnGradients(agreed.losses)
    kept: dict[Tensor, Tensor] = {leaf: torch.zeros_like(leaf) for leaf in lone}
    for task, found in passes:
        _require_dense(task, found)
        share = 1 / agreed.counts[places[task]]
        for leaf, view in _views(rows, places[task]):
            view.copy_(found[leaf] * share if leaf in found else torch.zeros_like(view))
        for leaf, gradient in found.items():
            if leaf in kept:
                kept[leaf] += gradient * share
            elif leaf not in shared:
                own.put(places[task], leaf, gradient)  # no copy of it is known elsewhere
    for block in rows.blocks:
        ranks.mean(block.matrix)
    for leaf, gradient in _reduced_together(ranks, kept):
        own.put(next(iter(lone[leaf])), leaf, gradient)
    words = f"sequential on {ranks.size} ranks: one backward for each task, rows averaged over the ranks; exact"
    return Rowwise(rows, shared, own, words), agreed


def _views(rows: Rows, task: int) -> Iterator[tuple[Tensor, Tensor]]:
    for block in rows.blocks:
        yield from zip((slot.leaf for slot in block.slots), block.views(task), strict=True)


def _reduced_together(ranks: Ranks, kept: Mapping[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """All-reduce task-only gradients, one message for each device and dtype."""
    families: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for leaf in kept:
        families.setdefault((leaf.device, leaf.dtype), []).append(leaf)
    for leaves in families.values():
        flat = torch.cat([kept[leaf].flatten() for leaf in leaves])
        ranks.mean(flat)
        for leaf, piece in zip(leaves, torch.split(flat, [leaf.numel() for leaf in leaves]), strict=True):
            yield leaf, piece.view(leaf.shape)


def _require_dense(task: str, found: Mapping[Tensor, Tensor]) -> None:
    if any(gradient.layout != torch.strided for gradient in found.values()):
        raise BalanceError(
            f"task {task!r} has sparse gradients, which are not averaged over ranks: use sparse=False, or a loss method"
        )


@final
class Averaged(Route):
    """A weighted backward whose gradients DDP averages over all ranks; told the weights of all tasks of all ranks."""

    def __init__(self, route: Route, agreed: Agreement, tasks: Sequence[str], size: int) -> None:
        self._route = route
        self._places = [agreed.tasks.index(task) for task in tasks]
        self._factors = torch.tensor([size / agreed.counts[i] for i in self._places], dtype=torch.float64)
        self._size = size

    @property
    def words(self) -> str:
        return f"{self._route.words}, averaged over {self._size} ranks by DistributedDataParallel"

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        here = [i for i, place in enumerate(self._places) if place in kept]
        self._route.write(weights[self._places] * self._factors, own[self._places] * self._factors, here)


def averaged(ranks: Ranks, route: Route, losses: Mapping[str, Tensor]) -> tuple[Route, Mapping[str, Tensor]]:
    """The route and the losses of the joint batch."""
    agreed = ranks.agree(losses, {})
    return Averaged(route, agreed, [*losses], ranks.size), agreed.losses
