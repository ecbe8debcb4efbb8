"""Auto-Lambda: weights that make the next step lower the losses on a held-out batch.

With theta the parameters, g_i the gradient of training task i, and a virtual step theta' = theta - a sum_i w_i g_i, the
weights descend on L(theta'), the sum of the *primary* tasks' losses on a held-out batch. By the chain rule

    dL(theta')/dw_i = -a <g_i, v>,    v = grad L(theta')

which the paper's code takes as a finite difference of the training losses along v,

    (L_i(theta + e v) - L_i(theta - e v)) / 2e = <g_i, v> + O(e^2)

The inner products themselves cost no extra pass where the rows g_i are at hand. Taking v at theta instead of theta' is
the first-order form (an error O(a)), and saves the second copy of the model. The factor a drops out: an Adam step
without its epsilon does not see the scale of the gradient.

What the balancer does: `learn(held_out_losses)` keeps v, the gradient of the losses weighted by `held_out`; at the next
backward it forms <g_i, v>, passes them to `learn`, and only then asks for `weights`.

Liu, James, Davison, Johns: Auto-Lambda: Disentangling Dynamic Task Relationships, TMLR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.adam import Learned
from groupwise.balance.arguments import Number, Positive, TaskNames
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError, listed

_KEY = "weight"


@final
@dataclass(frozen=True)
class AutoLambda(LossMethod):
    """Weights learnt on held-out batches (Liu et al. 2022, TMLR): `balancer.learn(held_out_losses)` before `backward`.

    A weight is a plain number and may pass zero: a task that raises the primary losses is then ascended, as in the
    authors' code. The update is the weighted sum; with t tasks it starts at `init` times the plain sum. Without
    `learn`, the weights stay as they are.

    Args:
        lr: of the Adam step on the weights.
        init: what every weight starts from.
        primary: the tasks whose held-out losses count; all by default. The others are auxiliary.
    """

    lr: Positive = 1e-4
    init: Number = 0.1
    primary: TaskNames | None = None

    class_properties = frozenset(
        {Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.DETERMINISTIC, Property.SEPARATE}
    )

    def __post_init__(self) -> None:
        arguments.read(self)

    def held_out(self, tasks: Sequence[str]) -> Tensor:
        """[t] float64: the coefficients of the held-out losses whose sum is descended, 1 for a primary task, else 0.

        Raises `BalanceError` where no primary task is among `tasks`.
        """
        chosen = [1.0 if self.primary is None or task in self.primary else 0.0 for task in tasks]
        if not any(chosen):
            raise BalanceError(
                f"none of the held-out losses ({listed(tasks)}) is of a primary task ({listed(self.primary or ())})"
            )
        return torch.tensor(chosen, dtype=torch.float64)

    def learn(self, alignments: Tensor, context: MethodContext, memory: Memory) -> None:
        """One step on the weights of `context.tasks`.

        Args:
            alignments: [t] <g_i, v>, the inner product of each task's training gradient with the held-out gradient v
                (that of `held_out` times the losses). A positive one raises the task's weight.
        """
        gradient = -alignments.detach().to(device="cpu", dtype=torch.float64)
        Learned(memory, _KEY, context.tasks, self.init).step(gradient, self.lr, eps=0.0)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] the weights as learnt so far."""
        return Learned(memory, _KEY, context.tasks, self.init).value
