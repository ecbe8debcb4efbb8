"""Fair shares: each task's gain is a power of its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Positive
from groupwise.balance.directions import among_present, lengths
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.solvers.bargaining import bargained
from groupwise.errors import BalanceError, listed


@final
@dataclass(frozen=True)
class FairGrad(GramianMethod):
    """G a = a^(-1/alpha) (Ban and Ji 2024, ICML), solved exactly.

    alpha towards 0 is the plain sum, 1 is Nash-MTL without its clip, towards infinity the smallest gain is made
    largest.

    Scale: that of the gradients to the power (1 - alpha) / (1 + alpha): at 1 the update has length sqrt(t) whatever
    they are, above 1 it *shrinks* as they grow. A single task gets |g|^(-2 alpha / (1 + alpha)) times its gradient. At
    a Pareto-stationary point no update gains for all, and it is zero.

    Args:
        alpha: how much fairness. From 0.1 to 100 it is solved whatever the norms of the gradients.

    Raises:
        BalanceError: alpha is not, and the norms (which the error names) are too far apart to solve for it.
    """

    alpha: Positive = 1.0

    class_properties = (PLAIN - {Property.SINGLE}) | {Property.NON_CONFLICTING}

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """At alpha = 1 it is Nash-MTL."""
        return self.class_properties | ({Property.SCALE_FREE, Property.TASK_SCALE_FREE} if self.alpha == 1 else set())

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] above 0, or all 0 at a Pareto-stationary point."""
        try:
            return among_present(gramian, lambda present, _: self._fair(present))
        except BalanceError as error:
            norms = listed(f"{t!r} {n:.2g}" for t, n in zip(context.tasks, lengths(gramian).tolist(), strict=True))
            raise BalanceError(
                f"FairGrad: alpha = {self.alpha:g}: {error}; the norms are {norms}: bring the losses to one scale, "
                f"or take an alpha from 0.1 to 100"
            ) from None

    def _fair(self, gramian: Tensor) -> Tensor:
        ones = torch.ones(len(gramian), dtype=torch.float64)
        a = bargained(gramian, ones, 1 / self.alpha)
        return torch.zeros_like(ones) if a is None else a
