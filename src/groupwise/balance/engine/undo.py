"""What is put back where an update fails half way: every `.grad`, and the generators that a method was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import final

import torch
from torch import Tensor

from groupwise.balance.method import Method


@final
class Undo:
    """The way back.

    A `.grad` that is None costs nothing to remember; one that is there is copied, as it is added to in place.

    Args:
        generators: those that a method was given to draw from.
    """

    def __init__(self, generators: Iterable[torch.Generator]) -> None:
        self._draws = [(generator, generator.get_state()) for generator in generators]
        self._grads: dict[int, tuple[Tensor, Tensor | None, Tensor | None]] = {}

    def remember(self, leaves: Iterable[Tensor]) -> None:
        """Remember the `.grad` of tensors that are about to be written."""
        for leaf in leaves:
            if id(leaf) not in self._grads:
                gradient = leaf.grad
                self._grads[id(leaf)] = leaf, gradient, None if gradient is None else gradient.detach().clone()

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back."""
        for generator, state in self._draws:
            generator.set_state(state)
        for leaf, gradient, content in self._grads.values():
            if gradient is not None and content is not None:
                gradient.copy_(content)
            if leaf.grad is not gradient:
                leaf.grad = gradient


def generators_of(method: Method) -> Iterator[torch.Generator]:
    """Those that a method, or one inside it, was given to draw from."""
    for field in fields(method):
        value = getattr(method, field.name)
        if isinstance(value, torch.Generator):
            yield value
        elif isinstance(value, Method):
            yield from generators_of(value)
