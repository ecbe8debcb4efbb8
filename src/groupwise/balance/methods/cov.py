"""Weights from the coefficient of variation: a loss that no longer varies, relative to its mean, is done.

With l = L_t / mean(L_1 … L_t-1) the ratio of a loss to its own past, the weight is the standard deviation of l over its
mean, both running (Welford 1962), normalised over tasks. Being a ratio twice over, it needs no epsilon: where nothing
varies at all, every task has the same share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance.domain import require_at_least_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property

_KEY = "count, mean loss, mean ratio, sum of its squared deviations"


@final
@dataclass(frozen=True)
class CoV(LossMethod):
    """w_i = c_i / sum c, c_i = std(l_i) / mean(l_i), l_i = L_i / mean(L_i) (Groenendijk et al. 2021, WACV).

    The statistics are those of the updates before this one. A task seen fewer than twice has none and gets 1/t; the
    others share the rest.

    Scale: a mean; the weights of the present tasks add up to 1.

    Raises:
        BalanceError: a negative loss, naming the task.
    """

    class_properties = frozenset({Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least 0, adding up to 1; then Welford's recurrences."""
        require_at_least_zero(self, losses, context.tasks, "add a constant to that loss, or use Equal or DWA")
        rows = memory.of_tasks(_KEY, context.tasks, torch.zeros(4, dtype=torch.float64))
        memory.keep_tasks(_KEY, context.tasks, _observed(losses, rows))
        return _shares(rows)


def _shares(rows: Tensor) -> Tensor:
    """1/t for each new task; the rest in proportion to variation, or evenly where there is none."""
    count, _, mean, squares = rows.unbind(1)
    new = count < 2
    variation = torch.where(new | (mean <= 0), 0.0, (squares.clamp(min=0) / count).sqrt() / mean)
    total = variation.sum()
    split = variation / total if total > 0 else (~new).double() / (~new).sum()
    return torch.where(new, 1 / len(rows), split * (1 - new.sum() / len(rows)))


def _observed(losses: Tensor, rows: Tensor) -> Tensor:
    """The rows after one more loss."""
    count, mean_loss, before, squares = rows.unbind(1)
    ratio = torch.where((count > 0) & (mean_loss > 0), losses / mean_loss, 1.0)
    after = before + (ratio - before) / (count + 1)
    mean_loss = mean_loss + (losses - mean_loss) / (count + 1)
    return torch.stack([count + 1, mean_loss, after, squares + (ratio - before) * (ratio - after)], 1)
