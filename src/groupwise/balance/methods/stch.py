"""Smooth Tchebycheff: the largest weighted loss, smoothed so that it has a gradient everywhere.

mu log sum exp(y / mu) tends to max(y) as mu tends to 0. Its derivative is the softmax of y / mu, which is computed
relative to the largest entry and cannot overflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Positive, TaskNumbers
from groupwise.balance.by_task import by_task
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.properties import PLAIN, Property


@final
@dataclass(frozen=True)
class STCH(LossMethod):
    """mu log sum_i exp(p_i (L_i - z_i) / mu) (Lin et al. 2024, ICML): weights p_i softmax(p (L - z) / mu)_i.

    The recipe around it in one library (the logarithm of the loss over that of a warm-up epoch, times t) is another
    method and is left out.

    Scale: between the smallest and the largest p_i, so with the uniform preference the update is at most 1/t of the
    largest gradient. Not homogeneous: mu is in the units of the losses.

    Args:
        mu: the smoothing; smaller is closer to the maximum. The paper tries 0.01 to 1 and recommends no single value.
        preference: p by task; uniform, 1/t, by default.
        ideal: the lowest value z that each loss can have, by task; 0 by default.
    """

    mu: Positive = 1.0
    preference: TaskNumbers | None = None
    ideal: TaskNumbers | None = None

    class_properties = PLAIN

    def __post_init__(self) -> None:
        arguments.read(self)

    @property
    def properties(self) -> frozenset[Property]:
        """A single task is left alone only where its preference is 1."""
        return self.class_properties - {Property.SINGLE} if self.preference is not None else self.class_properties

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] adding up to at most the largest preference."""
        p = torch.full_like(losses, 1 / len(losses))
        if self.preference is not None:
            p = by_task(self.preference).numbers("the preference of STCH", context.tasks)
        z = torch.zeros_like(losses)
        if self.ideal is not None:
            z = by_task(self.ideal).numbers("the ideal of STCH", context.tasks)
        weighted = p * (losses - z)
        return p * torch.softmax((weighted - weighted.max()) / self.mu, 0)
