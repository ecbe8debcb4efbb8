"""Which task pulls at which group, on request or where a balancer takes no task's gradient: a backward for each task.

The gradient of each task's loss gives its norm in each group, whose share of all the tasks' norms says who owns that
part of the model; between tasks, the cosine over the parameters that at least two of them reach says who disagrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from groupwise._shards import is_sharded
from groupwise.errors import RecordError
from groupwise.observe.grouping import GroupSnapshot
from groupwise.observe.sums import Sums
from groupwise.observe.tensors import entries, gathered, precision, squares
from groupwise.observe.update import inner
from groupwise.observe.user_metrics import Balanced, UserMetrics

Gradients = list[torch.Tensor | None]


def log_shares(losses: Mapping[str, torch.Tensor], snapshot: GroupSnapshot, metrics: UserMetrics) -> None:
    """Take the tasks' gradients, leaving every `.grad` and the graph as they are, and log what they say."""
    params = [(p, group) for p, group in zip(snapshot.params, snapshot.index, strict=True) if p.requires_grad]
    if any(is_sharded(p) for p, _ in params):
        raise RecordError(
            "tasks() cannot take gradients of parameters that are split over ranks: log a balancer's result"
        )
    found = {task: _gradients(task, loss, [p for p, _ in params]) for task, loss in _checked(losses).items()}
    _log(found, [group for _, group in params], snapshot, metrics)


def _log(found: Mapping[str, Gradients], index: Sequence[int], snapshot: GroupSnapshot, metrics: UserMetrics) -> None:
    """Log what the gradients of tasks, of the same parameters, come to."""
    reached = [sum(gradients[i] is not None for gradients in found.values()) for i in range(len(index))]
    shared = [i for i, count in enumerate(reached) if count > 1]
    norms = {task: _norms(gradients, index, snapshot) for task, gradients in found.items()}
    for task, own in norms.items():
        metrics.task(task, "norm", torch.linalg.vector_norm(own))
    metrics.shares(list(norms), snapshot.names, torch.stack(list(norms.values())))
    _log_cosines(found, shared, metrics)


def log_seen(losses: Mapping[str, torch.Tensor], snapshot: GroupSnapshot, metrics: UserMetrics) -> None:
    """Log the shares of the tasks that reach parameters of these groups, if two do and none is split over ranks."""
    params = [(p, group) for p, group in zip(snapshot.params, snapshot.index, strict=True) if p.requires_grad]
    if not params or any(is_sharded(p) for p, _ in params):
        return
    taken = {task: _taken(loss, [p for p, _ in params]) for task, loss in losses.items() if loss.requires_grad}
    found = {task: gradients for task, gradients in taken.items() if any(g is not None for g in gradients)}
    if len(found) > 1:
        _log(found, [group for _, group in params], snapshot, metrics)


def log_balanced(result: Balanced, snapshot: GroupSnapshot, metrics: UserMetrics) -> None:
    """Log the shares that a balancer has the norms of: of its shared parameters, group by group."""
    norms = result.shares
    if norms is None:
        return
    group = {id(p): i for p, i in zip(snapshot.params, snapshot.index, strict=True)}
    known = [(column, group[id(p)]) for column, p in enumerate(result.shared) if id(p) in group]
    if known:
        squared = norms[:, [column for column, _ in known]].square()
        sums = squared.new_zeros(len(norms), len(snapshot.names))
        sums.index_add_(1, torch.tensor([i for _, i in known], device=norms.device), squared)
        metrics.shares(result.tasks, snapshot.names, sums.sqrt())


def _checked(losses: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    for task, loss in losses.items():
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise RecordError(f"the loss of task {task!r} is not a tensor of one number")
        if not loss.requires_grad:
            raise RecordError(f"the loss of task {task!r} does not require grad: call tasks() before backward")
    if not losses:
        raise RecordError("no losses: tasks() takes a mapping of the tasks' names to their losses")
    return losses


def _gradients(task: str, loss: torch.Tensor, params: Sequence[torch.Tensor]) -> Gradients:
    found = _taken(loss, params)
    if all(gradient is None for gradient in found):
        raise RecordError(f"the loss of task {task!r} reaches no parameter of the optimizer")
    return found


def _taken(loss: torch.Tensor, params: Sequence[torch.Tensor]) -> Gradients:
    with torch.enable_grad():
        found = torch.autograd.grad(loss.sum(), params, retain_graph=True, allow_unused=True)
    return [g.coalesce() if g is not None and g.layout == torch.sparse_coo else g for g in found]


def _norms(gradients: Gradients, index: Sequence[int], snapshot: GroupSnapshot) -> torch.Tensor:
    """The norm in each group: [g]."""
    where = [i for i, gradient in enumerate(gradients) if gradient is not None]
    held = [entries(gradient) for gradient in gradients if gradient is not None]
    sums = Sums(len(snapshot.names), held[0].device)
    sums.add("gg", squares(held), [index[i] for i in where])
    return sums.row("gg").sqrt()


def _log_cosines(found: Mapping[str, Gradients], shared: Sequence[int], metrics: UserMetrics) -> None:
    tasks = list(found)
    squared = {(a, a): _product(found[a], found[a], shared) for a in tasks}
    for i, a in enumerate(tasks):
        for b in tasks[i + 1 :]:
            both, own, other = _product(found[a], found[b], shared), squared[a, a], squared[b, b]
            if both is not None and own is not None and other is not None:
                metrics.cosine(a, b, both / (own * other).sqrt())


def _product(a: Gradients, b: Gradients, shared: Sequence[int]) -> torch.Tensor | None:
    pairs = [(x, y) for x, y in ((a[i], b[i]) for i in shared) if x is not None and y is not None]
    found = gathered(inner(x, y) for x, y in pairs) if pairs else None
    return None if found is None else found.to(precision(found.device)).sum()
