"""Independent components: give every principal direction of the gradients the length of the shortest.

With G = V diag(lambda) V', the rows of B J, B = sqrt(lambda_min) V diag(lambda^-1/2) V', are orthogonal and of one
length, and of all such rows nearest to those of J. Directions with lambda = 0 are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskNumbers
from groupwise.balance.directions import preferred, require_above_zero
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property
from groupwise.balance.spectrum import spectrum


@final
@dataclass(frozen=True)
class AlignedMTL(GramianMethod):
    """a = sqrt(lambda_min) V diag(lambda^-1/2) V' w (Senushkin et al. 2023, CVPR).

    Scale: about the shortest principal direction, so the update shrinks as gradients become dependent, and grows again
    at once when one is left out as zero (2^-46 t of the largest).

    Args:
        variant: "mean", w = 1/t; or "sum", w = 1, t times as long, as in the first implementation.
        preference: w by task, scaled to add up to 1 (or t).
    """

    variant: Literal["mean", "sum"] = "mean"
    preference: TaskNumbers | None = None

    class_properties = PLAIN | {Property.HOMOGENEOUS}

    def __post_init__(self) -> None:
        arguments.read(self)
        require_above_zero(self.preference, self.name)

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] weights; those of w itself where every gradient is zero."""
        w = preferred(self.preference, self.name, context.tasks)
        w = w * len(w) if self.variant == "sum" else w
        values, vectors = spectrum(gramian)
        return vectors @ ((values[0] / values).sqrt() * (vectors.T @ w)) if len(values) else w
