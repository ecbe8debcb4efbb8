"""Auxiliary tasks help while they agree: a gradient counts where its cosine with the primary's is positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import TaskName
from groupwise.balance.directions import lengths, primary_of
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.properties import Property


@final
@dataclass(frozen=True)
class GCS(GramianMethod):
    """g_p + the sum of the g_j with cos(g_j, g_p) > 0 (gradient cosine similarity: Du et al. 2018, arXiv 1812.02224).

    The primary's loss never rises to first order.

    Scale: a sum of those that count.

    Args:
        primary: the task p; by default the first one ever given.
        variant: "unweighted"; or "weighted", where each counts with its cosine.

    Raises:
        BalanceError: the primary is not among the tasks of this update.
    """

    primary: TaskName | None = None
    variant: Literal["unweighted", "weighted"] = "unweighted"

    class_properties = frozenset({Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """With a named primary, neither order nor past makes a difference."""
        return self.class_properties | (
            {Property.EQUIVARIANT, Property.MEMORYLESS} if self.primary is not None else set()
        )

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] in [0, 1]; 1 at the primary."""
        first = primary_of(self.primary, self.name, context, memory)
        size = lengths(gramian) * lengths(gramian)[first]
        cosine = torch.where(size > 0, gramian[first] / size, 0.0)
        weights = (cosine > 0).double() if self.variant == "unweighted" else cosine.clamp(0, 1)
        weights[first] = 1.0
        return weights
