"""Writing `.grad` as `backward` would: added to what is there, in place, in the parameter's own memory format.

What `register_post_accumulate_grad_hook` was given is called once a parameter's gradient is whole, as in `backward`:
such a hook may make the optimizer's step, or move the gradient elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from groupwise import _torch
from groupwise.balance.engine.rows import Update, strides_of
from groupwise.errors import BalanceError


@torch.no_grad()
def add(updates: Iterable[Update], owned: bool = False) -> None:
    """Add each update to its parameter's `.grad`.

    The updates may be views of memory that is used again, unless they are `owned`: then one may become a `.grad`.
    """
    held: list[Update] = []
    hooked: dict[Tensor, list[Update]] = {}
    for leaf, update in updates:
        if leaf.grad is not None and leaf.grad.shape != update.shape:
            raise BalanceError(
                f"the .grad of a parameter of shape {list(leaf.shape)} has the shape {list(leaf.grad.shape)}: it "
                "is from before the parameter was changed; set it to None, optimizer.zero_grad()"
            )
        if _torch.hooks_after_grad(leaf):
            hooked.setdefault(leaf, []).append((leaf, update))
        else:
            held += _added(leaf, update, owned)
    _add_in_place(held)
    for leaf, own in hooked.items():
        for _, update in own:
            _add_in_place(_added(leaf, update, owned))
        for hook in _torch.hooks_after_grad(leaf):
            hook(leaf)


def _added(leaf: Tensor, update: Tensor, owned: bool) -> list[Update]:
    """Add an update to a `.grad`, unless it is one of those that are added together: the `.grad` and the update."""
    if leaf.grad is None:
        leaf.grad = update if owned and _fits(leaf, update) else _owned(leaf, update)
    elif leaf.grad.layout == torch.strided and update.layout == torch.strided:
        return [(leaf.grad, update)]
    elif leaf.grad.layout == torch.strided:
        leaf.grad += update
    else:
        leaf.grad = update + leaf.grad
    return []


def _add_in_place(held: Sequence[Update]) -> None:
    if held:
        _torch.add(*map(list, zip(*held, strict=True)))


def _fits(leaf: Tensor, update: Tensor) -> bool:
    """Whether it has memory of its own, and torch takes it for a gradient of the tensor."""
    return (
        update.layout == torch.strided and _alike(leaf, update) and update.untyped_storage().nbytes() == update.nbytes
    )


def _alike(leaf: Tensor, update: Tensor) -> bool:
    return update.dtype == leaf.dtype and update.device == leaf.device


def _owned(leaf: Tensor, update: Tensor) -> Tensor:
    """A gradient that shares no memory with anything."""
    if update.layout != torch.strided:
        return update.clone()
    if _alike(leaf, update) and leaf.is_contiguous() and update.is_contiguous():
        return update.clone(memory_format=torch.contiguous_format)
    new = torch.empty_strided(leaf.shape, strides_of(leaf), dtype=leaf.dtype, device=leaf.device)
    return new.copy_(update)
