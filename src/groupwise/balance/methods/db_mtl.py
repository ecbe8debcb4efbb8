"""Dual balancing: logarithms bring the losses to one scale, lengths bring the gradients to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Fraction
from groupwise.balance.domain import require_positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.properties import Property

_AVERAGE = "average gradient"


@final
@dataclass(frozen=True)
class DBMTL(JacobianMethod):
    """sum_i a_i u_i, u_i <- beta u_i + (1 - beta) grad log L_i from 0, a_i = max_j |u_j| / |u_i| (Lin et al. 2023,
    arXiv 2308.12029).

    The gradient of log L_i is that of L_i over L_i, so the scale of a task's loss makes no difference. Task-only
    parameters see 1 / L_i. Keeps one number per task and shared parameter.

    Scale: a sum of vectors of one length, that of the longest average; from 0, the first is (1 - beta) of a gradient.

    Args:
        beta: the decay of the averages.

    Raises:
        BalanceError: a loss that is not positive, naming the task.
    """

    beta: Fraction = 0.9

    class_properties = frozenset(
        {Property.EQUIVARIANT, Property.SCALE_FREE, Property.TASK_SCALE_FREE, Property.DETERMINISTIC}
    )

    def __post_init__(self) -> None:
        arguments.read(self)

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n]."""
        rows = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
        rows = rows * self._inverse(context).to(rows)[:, None]
        average = memory.of_rows(_AVERAGE, context.tasks, context, rows[0]).lerp(rows, 1 - self.beta)
        memory.keep_rows(_AVERAGE, context.tasks, context, average)
        length = torch.linalg.vector_norm(average, dim=1)
        weights = torch.where(length > 0, length.max() / length, 1.0)
        return (weights @ average).to(jacobian.dtype)

    def task_specific_weights(self, context: MethodContext, memory: Memory) -> Tensor | None:
        """[t] 1 / L_i."""
        return self._inverse(context)

    def _inverse(self, context: MethodContext) -> Tensor:
        require_positive(self, context.losses, context.tasks, "add a constant to that loss, or leave the task out")
        return 1 / context.losses
