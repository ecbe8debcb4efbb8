"""One Adam step on values that belong to tasks.

Some methods learn a number per task (a log-variance, a logit, a weight) from a gradient that they know in closed form.
The step is Adam's (Kingma and Ba 2015, ICLR), bias correction and all, with the moments and the *step count* kept per
task: a task that is absent stands still, and one that joins late starts as at the first step. With every task present
it is `torch.optim.Adam` to the last digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from groupwise._loss_weights import EPS, adam
from groupwise.balance.arrays import TORCH
from groupwise.balance.memory import Memory


@final
class Learned:
    """The learnt values of some tasks, as they stand in a memory.

    Args:
        memory, key: where they are kept; a task's row is its value, both moments, and the number of steps.
        tasks: whose values.
        start: what every task starts from.
    """

    def __init__(self, memory: Memory, key: str, tasks: Sequence[str], start: float = 0.0) -> None:
        self._memory, self._key, self._tasks = memory, key, tasks
        rows = memory.of_tasks(key, tasks, torch.tensor([start, 0.0, 0.0, 0.0], dtype=torch.float64))
        self.value, self._first, self._second, self._steps = rows.unbind(1)

    def step(self, gradient: Tensor, lr: float, eps: float = EPS) -> None:
        """Move the values against their [t] gradient, and keep them.

        `eps` is torch's, absolute as there; at 0 the step is free of the gradient's scale, and a gradient that has
        always been zero moves nothing.
        """
        steps = self._steps + 1
        move, first, second = adam(TORCH, self._first, self._second, steps, gradient, eps)
        rows = torch.stack([self.value - lr * move, first, second, steps], 1)
        self._memory.keep_tasks(self._key, self._tasks, rows)
