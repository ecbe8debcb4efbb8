"""One network of several: the view that alternating training steps.

A view owns nothing. Its step is the owner's step with `param_groups` cut to its networks for that time, so hooks,
clipping and the scheduler's bookkeeping see one optimizer. Trainers wrap an optimizer in a class that imitates its own
and hands on what it reads, but not what is assigned to it: so the cut is made on the owner, and the step goes through
the `door` that the view was asked at, where Lightning counts steps and scales gradients. Under
DistributedDataParallel gradients cannot be switched off: there the others' are put aside, and what is added is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from groupwise.optim.freezing import may_flip

if TYPE_CHECKING:
    from groupwise.optim.grouped_optimizer import GroupedOptimizer


class NetworkView:
    """The groups of some networks of a `GroupedOptimizer`. `with view:` switches off the gradients of all others."""

    def __init__(
        self, owner: GroupedOptimizer, networks: tuple[str, ...], door: GroupedOptimizer | None = None
    ) -> None:
        self.owner = owner
        self._door = door or owner
        self.networks = networks
        self._switched_off: list[list[torch.Tensor]] = []
        self._put_aside: list[list[tuple[torch.Tensor, torch.Tensor | None]]] = []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The owner's live groups of these networks."""
        return [group for group in self.owner.param_groups if group.get("network") in self.networks]

    @property
    def entered(self) -> bool:
        """Whether this is inside `with view:`, so that the others' gradients are off."""
        return bool(self._switched_off)

    @property
    def state(self) -> Any:
        """The owner's state."""
        return self.owner.state

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The owner's step, on these networks alone."""
        everything = self.owner.param_groups
        self.owner.param_groups = self.param_groups
        try:
            return self._door.step(closure)
        finally:
            self.owner.param_groups = everything

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of these networks alone."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.detach_().zero_()

    def __enter__(self) -> NetworkView:
        others = [group for group in self.owner.param_groups if group.get("network") not in self.networks]
        trained = [p for group in others for p in group["params"] if p.requires_grad]
        self._switched_off.append([p for p in trained if may_flip(p)])
        self._put_aside.append([(p, p.grad) for p in trained if not may_flip(p)])
        for p in self._switched_off[-1]:
            p.requires_grad_(False)
        for p, _ in self._put_aside[-1]:
            p.grad = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for p in self._switched_off.pop():
            p.requires_grad_(True)
        for p, gradient in self._put_aside.pop():
            p.grad = gradient

    def __repr__(self) -> str:
        return f"only({', '.join(map(repr, self.networks))}) of {type(self.owner).__name__}"
