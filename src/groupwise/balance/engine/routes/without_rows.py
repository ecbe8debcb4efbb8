"""Two ways to look without keeping rows of all parameters; what they find only sets the weights.

*Layer* (`at=`): one backward for each task down to one layer, whose gradients are the rows: F + B_h + B_t and t times
the part above the layer. Exact where the method is meant to look there (GradNorm), an approximation elsewhere.

*Gramian*: all tasks' backwards at once, batched by `torch.vmap`. As each parameter's gradients [t, …] appear, a hook
multiplies them into the [t, t] they add to the Gramian and lets them go. F + (t + 1)(B_h + B_t) and the memory of one
parameter's rows, plus activations' gradients times t; the rows of all parameters are never there together. Exact.

Either is followed by the weighted backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from groupwise.balance.engine.products import outer
from groupwise.balance.engine.routes.route import Route
from groupwise.balance.engine.routes.weighted import Weighted
from groupwise.balance.engine.rows import CHUNK, Rows, block_of
from groupwise.balance.engine.task_graph import TaskGraph, translated
from groupwise.errors import BalanceError


@final
class Layer(Route):
    """Rows of one layer's parameters.

    Args:
        task_graph: what to balance.
        layer: the parameters of the layer.

    Raises:
        BalanceError: a task that does not reach the layer.
    """

    def __init__(self, task_graph: TaskGraph, layer: Sequence[Tensor]) -> None:
        self._task_graph = task_graph
        self._write = Weighted(task_graph.losses, task_graph.scale, task_graph)
        found: dict[Tensor, dict[int, Tensor]] = {leaf: {} for leaf in layer}
        for i, task in enumerate(task_graph.tasks):
            leaves = [leaf for leaf in layer if task_graph.graph.leaves.get(leaf, 0) >> i & 1]
            if not leaves:
                raise BalanceError(f"task {task!r} does not reach the layer at at=: name one that every task reaches")
            for leaf, gradient in zip(leaves, task_graph.gradient(i, leaves), strict=True):
                if gradient is not None:
                    found[leaf][i] = gradient
        count = len(task_graph.tasks)
        self._rows = Rows(count, [block_of(leaf, by_task, count) for leaf, by_task in found.items() if by_task])

    @property
    def words(self) -> str:
        return (
            f"layer: {self._rows.count} backwards to the layer at at=, then one weighted backward; "
            "exact for the gradients of that layer"
        )

    @property
    def rows(self) -> Rows:
        return self._rows

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        self._write.write(weights, own, kept)


@final
class Batched(Route):
    """The Gramian alone, from one batched backward.

    Args:
        task_graph: what to balance.

    Raises:
        BalanceError: a backward that cannot be batched.
    """

    def __init__(self, task_graph: TaskGraph) -> None:
        self._task_graph = task_graph
        self._write = Weighted(task_graph.losses, task_graph.scale, task_graph)
        self._sum = _Sum()
        self._take(range(len(task_graph.tasks)))

    @property
    def words(self) -> str:
        return (
            f"gramian: {len(self._task_graph.tasks)} backwards at once, whose rows are multiplied as they appear and "
            "never kept, then one weighted backward; exact"
        )

    def gramian(self) -> Tensor | None:
        return self._sum.total

    def rescaled(self, table: Tensor) -> Tensor:
        """[t, t], taken again without broken tasks: 0/0 in the graph of one makes the rows of all nan."""
        if bool(table.diagonal().isfinite().all()):
            return table
        whole = [task for task in range(len(table)) if self._is_whole(task)]
        found = torch.full_like(table, torch.nan)
        if whole:
            self._sum = _Sum()
            self._take(whole)
            total = self._sum.total
            found[torch.tensor(whole)[:, None], whole] = torch.zeros(()).double() if total is None else total.cpu()
        return found

    def _is_whole(self, task: int) -> bool:
        grads = self._task_graph.gradient(task, self._task_graph.shared)
        return all(bool(torch.isfinite(gradient).all()) for gradient in grads if gradient is not None)

    def write(self, weights: Tensor, own: Tensor, kept: Sequence[int]) -> None:
        try:
            self._write.write(weights, own, kept)
        except RuntimeError as error:
            if "vmapped" not in str(error):
                raise
            raise BalanceError(
                "an intermediate tensor keeps its gradient (retain_grad(), or a hook that stores it), which a batched "
                'backward cannot fill: use route="sequential"'
            ) from error

    def _take(self, tasks: Sequence[int]) -> None:
        """Add the products of these tasks' gradients up."""
        with ExitStack() as hooks:
            for place, leaf in enumerate(self._task_graph.shared):
                hooks.callback(_hook(leaf, partial(self._sum.add, place)).remove)
            found = self._probe(tasks)
        for place, gradients in enumerate(found):
            if place not in self._sum.taken:  # torch runs no hook of a tensor that had one before `swap_tensors`
                self._sum.take(gradients)

    def _probe(self, tasks: Sequence[int]) -> tuple[Tensor, ...]:
        every = [*self._task_graph.losses.values()]
        losses = [every[task] for task in tasks]
        scale = 1.0 if self._task_graph.scale is None else self._task_graph.scale
        seeds = (torch.eye(len(losses), device=losses[0].device) * scale).to(losses[0].dtype)

        def backward(seed: Tensor) -> tuple[Tensor, ...]:
            with translated():
                starts = [start.to(loss) for start, loss in zip(seed.unbind(), losses, strict=True)]
                return torch.autograd.grad(
                    losses, self._task_graph.shared, starts, retain_graph=True, materialize_grads=True
                )

        try:
            found: tuple[Tensor, ...] = torch.vmap(backward)(seeds)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
            raise BalanceError(f'this model\'s backward cannot be batched ({why}): use route="sequential"') from error
        return found


@final
class _Sum:
    """The Gramian so far, and the parameters (their places) that are in it."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.taken: set[int] = set()

    def add(self, place: int, gradient: Tensor) -> Tensor:
        """The hook: take one parameter's gradients, leave zeros that take no memory."""
        self.taken.add(place)
        return _Take.apply(gradient, self)  # type: ignore[no-any-return, no-untyped-call]

    def take(self, rows: Tensor) -> None:
        """Add the products of [t, …]."""
        for part in torch.split(rows.reshape(len(rows), -1), CHUNK, dim=1):
            product = outer(part)
            self.total = product if self.total is None else self.total + product.to(self.total.device)


def _hook(leaf: Tensor, hook: Callable[[Tensor], Tensor]) -> RemovableHandle:
    return leaf.register_hook(hook)  # type: ignore[no-any-return, no-untyped-call]


class _Take(torch.autograd.Function):
    """Its rule for `vmap` is the one public way to see all tasks' gradients from inside."""

    @staticmethod
    def forward(gradient: Tensor, total: _Sum) -> Tensor:
        return torch.zeros((), dtype=gradient.dtype, device=gradient.device).expand(gradient.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, gradient: Tensor, total: _Sum) -> tuple[Tensor, None]:
        if in_dims[0] is None:
            gradient = gradient.expand(info.batch_size, *gradient.shape)
        else:
            gradient = gradient.movedim(in_dims[0], 0)
        total.take(gradient)
        return _Take.forward(gradient[0], total), None
