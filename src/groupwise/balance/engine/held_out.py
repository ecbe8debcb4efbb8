"""The gradient of held-out losses, kept until the next backward has rows to compare it with (Auto-Lambda)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final
from weakref import ref

import torch
from torch import Tensor

from groupwise.balance.engine.routes.rowwise import Rowwise
from groupwise.balance.engine.routes.weighted import starting
from groupwise.balance.engine.task_graph import task_graph_of, translated
from groupwise.errors import BalanceError


@final
class HeldOut:
    """v, by parameter, which it does not keep alive."""

    def __init__(self, by_leaf: Mapping[Tensor, Tensor]) -> None:
        self._by_leaf = {ref(leaf): gradient for leaf, gradient in by_leaf.items()}

    def alignments(self, route: Rowwise) -> Tensor:
        """[t] float64 on the CPU: the inner product with each task's gradient of all that it reaches."""
        total = torch.zeros(route.rows.count, dtype=torch.float64)
        for block in route.rows.blocks:
            for task in range(route.rows.count):
                row = block.shaped(block.matrix[task])
                total[task] += sum(self._product(leaf, gradient) for leaf, gradient in row)
        for leaf, by_task in route.own.found.items():
            for task, gradient in by_task.items():
                total[task] += self._product(leaf, gradient)
        return total / route.rows.scale

    def _product(self, leaf: Tensor, gradient: Tensor) -> float:
        if ref(leaf) not in self._by_leaf:
            return 0.0
        ours = self._by_leaf[ref(leaf)]
        if ours.shape != gradient.shape:
            raise BalanceError(
                f"a parameter of shape {list(gradient.shape)} had the shape {list(ours.shape)} at learn(): "
                "call learn() again"
            )
        if ours.layout != torch.strided or gradient.layout != torch.strided:
            ours, gradient = ours.to_dense(), gradient.to_dense()
        return float((ours * gradient).sum(dtype=torch.float64))


def gradient_of(losses: Mapping[str, Tensor], coefficients: Tensor) -> dict[Tensor, Tensor]:
    """The gradient of the sum of held-out losses, each times its coefficient; their graph is used up."""
    if not losses:
        return {}
    leaves = [*task_graph_of(losses, None, None).graph.leaves]
    scalars = [*losses.values()]
    with translated():
        grads = torch.autograd.grad(scalars, leaves, starting(scalars, coefficients, None), allow_unused=True)
    return {leaf: gradient for leaf, gradient in zip(leaves, grads, strict=True) if gradient is not None}
