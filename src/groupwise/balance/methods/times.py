"""Two halves that multiply: one scales the losses, the other balances the gradients of the scaled losses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from groupwise.balance import arguments
from groupwise.balance.arguments import Inner
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, LossMethod, MethodContext
from groupwise.balance.methods.around import among
from groupwise.balance.properties import Property
from groupwise.errors import BalanceError

_FACTOR = "factor"
_BOTH = frozenset({Property.EQUIVARIANT, Property.MEMORYLESS, Property.DETERMINISTIC, Property.SINGLE})


@final
@dataclass(frozen=True)
class Times(GramianMethod):
    """s_i a_i: s the weights of `losses`, a those of `gradients` from the gradients of s_i L_i.

    Task-only parameters see s_i alone, as each half says by itself. A task with s_i = 0 is not there for `gradients`,
    and its weight is 0: what has no length would else be the shortest vector there is (MGDA), or have no logarithm.

    Scale: that of `gradients`, for gradients that `losses` has scaled.

    Args:
        losses: the half that scales, a loss method.
        gradients: the half that balances, a Gramian method; it sees the scaled losses.
    """

    losses: Inner
    gradients: Inner

    def __post_init__(self) -> None:
        arguments.read(self)
        if not isinstance(self.losses, LossMethod):
            raise BalanceError(f"Times: losses: {self.losses.name} is not a method that looks at losses alone")
        if not isinstance(self.gradients, GramianMethod):
            hint = "; to weigh losses before it does, multiply them" if isinstance(self.gradients, LossMethod) else ""
            raise BalanceError(f"Times: gradients: {self.gradients.name} is not a method that weights gradients{hint}")
        if self.gradients.name == "Periodic":
            raise BalanceError("Times: Periodic goes outside: write Periodic(Times(…), n)")

    @property
    def properties(self) -> frozenset[Property]:
        """The properties of both halves; no conflict is a matter of the gradients' half."""
        free = {Property.NON_CONFLICTING} & self.gradients.properties
        return (self.losses.properties & self.gradients.properties & _BOTH) | free

    def weights(self, gramian: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        """[t] s_i a_i."""
        s: Tensor = self.losses.weights(context.losses, context, memory.part("losses"))  # type: ignore[attr-defined]
        memory.keep_tasks(_FACTOR, context.tasks, s)
        seen = [i for i, factor in enumerate(s.tolist()) if factor]
        if not seen:
            return torch.zeros_like(s)
        among_seen, scale = among(context, seen), s[seen]
        scaled = replace(among_seen, losses=scale * among_seen.losses)
        block = gramian[seen][:, seen] * scale.outer(scale)
        a: Tensor = self.gradients.weights(block, scaled, memory.part("gradients"))  # type: ignore[attr-defined]
        return torch.zeros_like(s).index_put((torch.tensor(seen),), scale * a)

    def task_specific_weights(self, context: MethodContext, memory: Memory) -> Tensor | None:
        """[t] s_i."""
        return memory.of_tasks(_FACTOR, context.tasks, 1.0)

    def after_step(self, context: MethodContext, memory: Memory) -> None:
        """Pass it on."""
        self.losses.after_step(context, memory.part("losses"))
        self.gradients.after_step(context, memory.part("gradients"))

    def end_epoch(self, memory: Memory) -> None:
        """Pass it on."""
        self.losses.end_epoch(memory.part("losses"))
        self.gradients.end_epoch(memory.part("gradients"))
