"""One network of several: the view that alternating training steps.

A view owns nothing. Its step is the owner's step with `param_groups` cut to its networks for that time, so hooks,
clipping and the scheduler's bookkeeping see one optimizer. Trainers wrap an optimizer in a class that imitates its own
and hands on what it reads, but not what is assigned to it: so the cut is made on the owner, and the step goes through
the `wrapper` that the view was asked at, where Lightning counts steps and scales gradients. Under
DistributedDataParallel gradients cannot be switched off: there the others' are put aside, and what is added is dropped.
What is frozen or unfrozen inside the block, by hand or by the plan's timeline, stays so. What is done to the owner in
the middle of a view's step, a regroup or a save by a hook, is done to all of it (`with_all_groups`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol

import torch

from groupwise.optim.freezing import may_flip
from groupwise.optim.paused import pause


class Owner(Protocol):
    """The optimizer that a view is of."""

    param_groups: list[dict[str, Any]]

    @property
    def state(self) -> Any: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None: ...


class NetworkView:
    """The groups of some networks of a `GroupedOptimizer`. `with view:` switches off the gradients of all others."""

    def __init__(self, owner: Owner, networks: tuple[str, ...], wrapper: Owner | None = None) -> None:
        self.owner = owner
        self._wrapper = wrapper or owner
        self.networks = networks
        self.stepping = False
        self._everything: list[dict[str, Any]] = []
        self._own: list[dict[str, Any]] = []
        self._before: list[dict[str, Any]] = []
        self._undo: list[contextlib.ExitStack] = []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The owner's live groups of these networks."""
        return [group for group in self.owner.param_groups if group.get("network") in self.networks]

    @property
    def entered(self) -> bool:
        """Whether the view is entered as a context manager, so that the others' gradients are off."""
        return bool(self._undo)

    @property
    def state(self) -> Any:
        """The owner's state."""
        return self.owner.state

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The owner's step, on these networks alone."""
        self._cut()
        try:
            return self._wrapper.step(closure)
        finally:
            self._join()

    @property
    def in_force(self) -> bool:
        """Whether the owner's groups are cut to this view's, by a step of it that is under way."""
        return self.stepping and self.owner.param_groups is self._own

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """In the middle of a step of this view: the owner's groups are all again, and cut anew afterwards."""
        self._join()
        try:
            yield
        finally:
            self._cut()

    def _cut(self) -> None:
        self._everything, self._own = self.owner.param_groups, self.param_groups
        self._before = list(self._own)
        self.owner.param_groups, self.stepping = self._own, True

    def _join(self) -> None:
        self.stepping = False
        if self.owner.param_groups is self._own:  # else somebody has set other groups meanwhile
            self._everything += [g for g in self._own if not any(g is other for other in self._before)]
            self.owner.param_groups = self._everything
        self._everything, self._own, self._before = [], [], []

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
        with contextlib.ExitStack() as undo:
            for p in [p for group in others for p in group["params"] if p.requires_grad]:
                undo.callback(pause(p) if may_flip(p) else _put_aside(p))
            self._undo.append(undo.pop_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.pop().close()

    def __repr__(self) -> str:
        return f"only({', '.join(map(repr, self.networks))}) of {type(self.owner).__name__}"


@contextlib.contextmanager
def with_all_groups(views: Iterable[NetworkView]) -> Iterator[None]:
    """The owner of `views` has all of its groups in here, even in the middle of a step of one of them."""
    known = list(views)
    with contextlib.ExitStack() as stack:
        while (view := next((view for view in known if view.in_force), None)) is not None:
            stack.enter_context(view.joined())
        yield


def _put_aside(p: torch.Tensor) -> Callable[[], None]:
    """Take away the gradient of `p`; return what puts it back in place of whatever was added meanwhile."""
    gradient, p.grad = p.grad, None
    return lambda: setattr(p, "grad", gradient)
