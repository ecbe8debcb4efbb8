"""Scale invariance by the logarithm: a task that is measured in other units has the same gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from groupwise._loss_weights import log_sum
from groupwise.balance.domain import require_positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property


@final
@dataclass(frozen=True)
class LogSum(LossMethod):
    """sum_i log L_i, so that the weight of task i is 1/L_i.

    Known as the scale-invariant baseline (Navon et al. 2022, ICML) and as the loss half of DB-MTL (Lin et al. 2023).
    log(1 + L), found under the same name elsewhere, is not scale-invariant and is left out.

    Scale: a sum over tasks, each of the size of its *relative* gradient |g_i| / L_i.

    Raises:
        BalanceError: a loss that is zero or negative, naming the task.
    """

    class_properties = PLAIN - {Property.SINGLE} | {Property.SCALE_FREE, Property.TASK_SCALE_FREE}

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] of 1/L_i."""
        require_positive(self, losses, context.tasks, "add a constant to that loss, or use Equal, Static or GradNorm")
        found: Tensor = log_sum(losses)
        return found
