"""All of a change of an optimizer, or nothing.

A load and a regroup put other groups and other state into an optimizer's list and mapping, which wrappers share; they
also switch gradients on and off, and let the scheduler write. So what can be changed is noted before, and put back if
anything raises, whoever raised it: a user's hook, an engine, a schedule without its length, a warning made an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any

import torch


class AllOrNothing:
    """Puts an optimizer back as it was if what happens inside raises.

    Args:
        optimizer: its attributes and its groups are noted.
        others: objects whose attributes go along (a scheduler, a monitor).
        parameters: tensors whose `requires_grad` and `grad` go along, besides those in the groups.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, others: Iterable[object] = (), parameters: Iterable[torch.Tensor] = ()
    ) -> None:
        groups, self._optimizer = optimizer.param_groups, optimizer
        self._attributes = [(vars(each), dict(vars(each))) for each in (optimizer, *others)]
        self._groups = [(group, dict(group)) for group in groups]
        self._held = groups, optimizer.state, list(groups), dict(optimizer.state)
        tensors = {id(p): p for p in [*(p for group in groups for p in group["params"]), *parameters]}
        self._flags = [(p, p.requires_grad, p.grad) for p in tensors.values()]

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._put_back()

    def _put_back(self) -> None:
        for live, before in [*self._attributes, *self._groups]:
            live.clear()
            live.update(before)
        refill(self._optimizer, *self._held)
        for p, trains, gradient in self._flags:
            if p.requires_grad != trains:
                p.requires_grad_(trains)
            p.grad = gradient


def refill(
    optimizer: torch.optim.Optimizer,
    groups: list[dict[str, Any]],
    state: MutableMapping[Any, Any],
    new_groups: Iterable[dict[str, Any]],
    new_state: Mapping[Any, Any],
) -> None:
    """Give an optimizer new groups and state in the list and the mapping that it has had: wrappers (SAM, Lookahead)
    share the list with the optimizer that they are around, and are to step what it steps.
    """
    own_groups, own_state = list(new_groups), dict(new_state)
    groups[:] = own_groups
    state.clear()
    state.update(own_state)
    optimizer.param_groups, optimizer.state = groups, state  # type: ignore[assignment]  # torch says defaultdict
