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
from groupwise.balance.claims import Claim
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, Seen
from groupwise.errors import BalanceError, unknown


@final
@dataclass(frozen=True)
class MetaBalance(JacobianMethod):
    """sum_i (r m_0 / m_i + 1 - r) g_i for each parameter tensor, m_i <- beta m_i + (1 - beta) |g_i|, 0 the primary task
    (He et al. 2022, WWW).

    Where the primary task is absent, its last norms stand in. A tensor that it never reaches has m_0 = 0 there, so the
    auxiliary gradients are left with the share 1 - r.

    Scale: a sum of gradients of about the primary one's size.

    Args:
        primary: the task whose gradients set the size; the first one seen by default.
        relax: r from 0 (the plain sum) to 1 (equal norms).
        beta: the smoothing of the norms.

    Raises:
        BalanceError: a `primary` that no batch so far has had.
    """

    primary: TaskName | None = None
    relax: Fraction = 0.7
    beta: Fraction = 0.9

    promises = frozenset({Claim.HOMOGENEOUS, Claim.SINGLE, Claim.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)
        if self.beta == 1:
            raise BalanceError("MetaBalance: beta: 1 would never look at a gradient; the paper's is 0.9")

    @property
    def claims(self) -> frozenset[Claim]:
        """The order of the tasks matters only where the first is the primary one."""
        return self.promises | {Claim.EQUIVARIANT} if self.primary else self.promises

    def update(self, jacobian: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[n]."""
        rows = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
        parts = rows.split_with_sizes(seen.splits, 1)
        now = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts], 1)
        norms = memory.of_tasks("norms", seen.tasks, torch.zeros_like(now[0])).lerp(now, 1 - self.beta)
        memory.keep_tasks("norms", seen.tasks, norms)
        ratio = torch.where(norms > 0, self._reference(norms, seen, memory) / norms, 1.0)
        factors = self.relax * ratio + (1 - self.relax)
        update = torch.cat([factor @ part for factor, part in zip(factors.unbind(1), parts, strict=True)])
        return update.to(jacobian.dtype)

    def _reference(self, norms: Tensor, seen: Seen, memory: Memory) -> Tensor:
        """[p] the norms of the primary task, as last seen."""
        present = self._primary(seen, memory)
        if any(present):
            memory.keep_run("primary norms", norms[present.index(True)])
        elif "primary norms" not in memory:
            raise BalanceError(
                f"MetaBalance: no batch has had the primary task yet: {unknown('task', self.primary or '', seen.tasks)}"
            )
        return memory.of_run("primary norms", 0.0).to(norms)

    def _primary(self, seen: Seen, memory: Memory) -> list[bool]:
        if self.primary is not None:
            return [task == self.primary for task in seen.tasks]
        if not memory.of_run("known", 0.0):
            memory.keep_run("known", 1.0)
            memory.keep_tasks("primary", seen.tasks[:1], torch.ones(1, dtype=torch.float64))
        return [bool(known) for known in memory.has_tasks("primary", seen.tasks)]
