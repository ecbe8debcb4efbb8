"""Auxiliary gradients brought near the size of the primary task's, parameter tensor by parameter tensor.

Sizes differ between layers, so one factor per task is too coarse: each parameter tensor has its own norms, smoothed
over updates. The smoothing starts at 0 for every task, and the bias that this leaves cancels in the ratio of tasks of
the same age.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Fraction, TaskName
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError, unknown

_NORMS, _PRIMARY = "norms", "primary"


@final
@dataclass(frozen=True)
class MetaBalance(JacobianMethod):
    """sum_i (r m_0 / m_i + 1 - r) g_i for each parameter tensor, m_i <- beta m_i + (1 - beta) |g_i|, 0 the primary task
    (He et al. 2022, WWW).

    Where the primary task is absent, its last norms stand in. A tensor that it never reaches has m_0 = 0 there, so the
    auxiliary gradients are left with the share 1 - r.

    Scale: a sum of gradients of about the primary one's size.

    Args:
        primary: the task whose gradients set the size; the first one given by default.
        relax: r from 0 (the plain sum) to 1 (equal norms).
        beta: the smoothing of the norms.

    Raises:
        BalanceError: a `primary` that no batch so far has had.
    """

    primary: TaskName | None = None
    relax: Fraction = 0.7
    beta: Fraction = 0.9

    class_properties = frozenset({Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)
        if self.beta == 1:
            raise BalanceError("MetaBalance: beta: 1 would never look at a gradient; the paper's is 0.9")

    @property
    def properties(self) -> frozenset[Property]:
        """The order of the tasks matters only where the first is the primary one."""
        return self.class_properties | {Property.EQUIVARIANT} if self.primary else self.class_properties

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n]."""
        rows = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
        parts = rows.split_with_sizes(context.splits, 1)
        now = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts], 1)
        norms = memory.of_rows(_NORMS, context.tasks, context, now[0]).lerp(now, 1 - self.beta)
        memory.keep_rows(_NORMS, context.tasks, context, norms)
        primary = memory.of_rows(_NORMS, [self._primary(context, memory)], context, now[0])[0]
        ratio = torch.where(norms > 0, primary / norms, 1.0)
        factors = self.relax * ratio + (1 - self.relax)
        update = torch.cat([factor @ part for factor, part in zip(factors.unbind(1), parts, strict=True)])
        return update.to(jacobian.dtype)

    def _primary(self, context: MethodContext, memory: Memory) -> str:
        """The task whose norms, as last measured, set the size."""
        if self.primary is not None:
            if self.primary not in memory.tasks():
                raise BalanceError(
                    "MetaBalance: no batch has had the primary task yet: "
                    f"{unknown('task', self.primary, context.tasks)}"
                )
            return self.primary
        known = sorted(memory.tasks_with(_PRIMARY))
        if not known:
            memory.keep_tasks(_PRIMARY, context.tasks[:1], torch.ones(1, dtype=torch.float64))
        return known[0] if known else context.tasks[0]
