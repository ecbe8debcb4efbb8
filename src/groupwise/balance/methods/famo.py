"""FAMO: all losses fall at the same relative rate, at the cost of one forward pass.

The update descends c sum_i z_i log(L_i - b_i) with z = softmax(xi) and c so that the weights add up to 1. After the
step, the decrease of each task, d_i = log(L_i - b_i) before - log(L_i - b_i) after, is the gradient of the logits
through the softmax: xi moves by Adam against J d + gamma xi, J = diag(z) - z z'. A task that fell more than the others
loses weight.

The decrease is meant on the *same batch*, so somebody has to compute the losses again after the optimizer's step and
say so (`balancer.after_step(losses)`; in evaluation mode, or BatchNorm's statistics move twice and dropout's noise is
taken for progress). Where nobody does, the losses of the next backward stand in: free, and noisier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.adam import Learned
from groupwise.balance.arguments import NonNegative, Positive, TaskNumbers
from groupwise.balance.by_task import by_task
from groupwise.balance.domain import require_positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

_LOGIT, _BEFORE = "logit", "log loss, and in which call"
_NEVER = torch.zeros(2, dtype=torch.float64)


@final
@dataclass(frozen=True)
class FAMO(LossMethod):
    """w_i = c z_i / (L_i - b_i), z = softmax(xi), c = 1 / sum(z_j / (L_j - b_j)) (Liu et al. 2023, NeurIPS).

    Scale: a convex combination; the weights of the present tasks add up to 1. The authors' code also clips the shared
    gradient to norm 1: that is the plan's `clip`, not the method's.

    Args:
        lr: of the Adam on the logits.
        gamma: the decay of the logits towards 0: 0.001 in the paper, 0 in its toy example.
        floor: b by task, a lower bound of each loss; 0 by default.

    Raises:
        BalanceError: a loss that is not above its floor, naming the task.
    """

    lr: Positive = 0.025
    gamma: NonNegative = 1e-3
    floor: TaskNumbers | None = None

    class_properties = frozenset({Property.EQUIVARIANT, Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """Homogeneous too, where no floor stands in the way."""
        return self.class_properties if self.floor is not None else self.class_properties | {Property.HOMOGENEOUS}

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] above 0, adding up to 1."""
        logs = self._logs(losses, context)
        self._progress(logs, context, memory)
        call = memory.of_run("call", 0.0) + 1
        memory.keep_run("call", call)
        memory.keep_tasks(_BEFORE, context.tasks, torch.stack([logs, call.expand(len(logs))], 1))
        return torch.softmax(torch.log_softmax(Learned(memory, _LOGIT, context.tasks).value, 0) - logs, 0)

    def after_step(self, context: MethodContext, memory: Memory) -> None:
        """Learn from the losses on the same batch after the step. `BalanceError` before the first backward."""
        if not memory.of_run("call", 0.0):
            raise BalanceError(
                "FAMO: after_step follows a backward and the optimizer's step; there was no backward yet"
            )
        self._progress(self._logs(context.losses, context), context, memory)
        memory.keep_tasks(_BEFORE, context.tasks, _NEVER.expand(len(context.tasks), 2))

    def _logs(self, losses: Tensor, context: MethodContext) -> Tensor:
        if self.floor is not None:
            losses = losses - by_task(self.floor).numbers("the floor of FAMO", context.tasks)
        way_out = f"give {'a lower' if self.floor else 'it a'} floor, FAMO(floor={{…}}), below all that it can reach"
        require_positive(self, losses, context.tasks, way_out)
        return losses.log()

    def _progress(self, logs: Tensor, context: MethodContext, memory: Memory) -> None:
        """Move the logits of the tasks that the last backward saw and of which nothing has been said since."""
        before, call = memory.of_tasks(_BEFORE, context.tasks, _NEVER).unbind(1)
        last = call == memory.of_run("call", 1.0)
        tasks = [task for task, waits in zip(context.tasks, last.tolist(), strict=True) if waits]
        if tasks:
            logits = Learned(memory, _LOGIT, tasks)
            z = torch.softmax(logits.value, 0)
            decrease = (before - logs)[last]
            logits.step(z * (decrease - z @ decrease) + self.gamma * logits.value, self.lr)
