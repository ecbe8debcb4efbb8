"""Weights by excess risk: how far a task still is from its own optimum, not how large its loss is.

Near the optimum the excess of a loss is about g' H^-1 g / 2. With H replaced by the diagonal h = sqrt(sum of g^2 so
far), it is the sum of g^2 / h, in the units of g. Divided by its own first value it says how much of the excess is
left, and the weights rise exponentially with it. No epsilon is needed: an entry that was only ever zero contributes
zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Positive
from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, MethodContext
from groupwise.balance.properties import Property


@final
@dataclass(frozen=True)
class ExcessMTL(JacobianMethod):
    """w <- w exp(eta e) over its sum, e_i = E_i / E_i(0), E_i = sum g_i^2 / sqrt(sum of g_i^2 over updates)
    (He et al. 2024, ICML).

    At a task's first update e is 1, so the first weights are equal. Peers put the undivided E there, which makes them
    depend on the scale of the losses for the rest of the run; that is left out.

    Scale: a mean; the weights of the present tasks add up to 1. Keeps one number per task and shared parameter.

    Args:
        eta: how fast the weights follow; implementations use 0.01 and 1.
    """

    eta: Positive = 0.01

    class_properties = frozenset({Property.EQUIVARIANT, Property.HOMOGENEOUS, Property.SINGLE, Property.DETERMINISTIC})

    def __post_init__(self) -> None:
        arguments.read(self)

    def update(self, jacobian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[n]."""
        dtype = torch.promote_types(jacobian.dtype, torch.float32)
        pairs = zip(context.tasks, jacobian, strict=True)
        excess = torch.stack([_excess(row.to(dtype), task, context, memory) for task, row in pairs]).cpu()
        weights = torch.softmax(self._logits(excess, context, memory), 0)
        return (weights.to(device=jacobian.device, dtype=dtype) @ jacobian.to(dtype)).to(jacobian.dtype)

    def _logits(self, excess: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] log w up to a constant. Centred over the present tasks, so that an absent one neither falls nor rises."""
        first = memory.of_tasks("first excess", context.tasks, 0.0)
        first = torch.where(first > 0, first, excess)
        memory.keep_tasks("first excess", context.tasks, first)
        left = torch.where(first > 0, excess / first, 1.0)
        logits = memory.of_tasks("log weight", context.tasks, 0.0) + self.eta * (left - left.mean())
        memory.keep_tasks("log weight", context.tasks, logits)
        return logits


def _excess(row: Tensor, task: str, context: MethodContext, memory: Memory) -> Tensor:
    """E_i in float64. Kept is the root of the sum of squares, which overflows only where g itself does."""
    root = torch.hypot(memory.of_rows("root of squares", [task], context, row), row)
    memory.keep_rows("root of squares", [task], context, root)
    return torch.where(root > 0, row / root * row, 0.0).sum(dtype=torch.float64)
