"""The direction in which even the slowest task falls fastest.

The shortest vector of the gradients' convex hull has, with every gradient, a product of at least its own square: to
first order no loss rises, and the least of the falls is as large as it can be for an update of that length (Desideri
2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskNumbers
from groupwise.balance.directions import lengths, preferred, require_above_zero
from groupwise.balance.domain import require_positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.solvers.simplex import shortest


@final
@dataclass(frozen=True)
class MGDA(GramianMethod):
    """min |J'w| over the simplex (Desideri 2012, C. R. Acad. Sci.; Sener and Koltun 2018, NeurIPS), solved exactly.

    Scale: a mean; the update is no longer than the shortest gradient, and zero at a Pareto-stationary point: also
    where a single gradient is zero.

    Args:
        variant: what each gradient is divided by before w is sought. "none" is the paper's; "l2" its length, "loss" its
            loss, "loss+" both: as in the published code, the w so found weights the *raw* gradients, and no common
            descent is promised any more.
        preference: p by task: the fall of each task's loss is sought in proportion to p.

    Raises:
        BalanceError: a loss that is not positive, under "loss" and "loss+".
    """

    variant: Literal["none", "l2", "loss", "loss+"] = "none"
    preference: TaskNumbers | None = None

    class_properties = (PLAIN - {Property.EQUIVARIANT}) | {Property.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    @property
    def properties(self) -> frozenset[Property]:
        """With normalised gradients w is sought elsewhere than it is used, and J'w need not be unique where w is
        not. A twin with a preference of its own counts for more than once."""
        own = {Property.EQUIVARIANT, Property.NON_CONFLICTING} | (
            {Property.DUPLICABLE} if self.preference is None else set()
        )
        return self.class_properties | own if self.variant == "none" else self.class_properties

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] at least 0, adding up to 1."""
        if self.variant == "none" and self.preference is None:
            return shortest(gramian)
        by = preferred(self.preference, self.name, context.tasks) * len(gramian)
        size = by * self._normaliser(gramian, context)
        weights = shortest(gramian / size.outer(size))
        return weights / by / (weights / by).sum()

    def _normaliser(self, gramian: Tensor, context: MethodContext) -> Tensor:
        size = torch.ones(len(gramian), dtype=torch.float64)
        if self.variant.startswith("loss"):
            require_positive(
                self, context.losses, context.tasks, 'add a constant, or use variant="l2"', "divides by a loss"
            )
            size = context.losses
        if self.variant in ("l2", "loss+"):
            n = lengths(gramian)
            size = size * torch.where(n > 0, n, 1.0)
        return size
