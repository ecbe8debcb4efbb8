"""The exact update: the weights before a step, and what the step made of them.

Δ = w' − w needs a copy of w; nothing else tells what an optimizer really did (lr·g is wrong for any but plain SGD).
The copy is taken at the cadence of "updates" alone. It is compared in pieces that fit a processor's cache, so memory is
read once: the difference, its norm and its product with the gradient are taken from the same piece. With the gradient g
from before clipping, −⟨g, Δ⟩ is how much the update lowers the loss to first order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch

from groupwise._shards import local
from groupwise.observe.tensors import gathered

_PIECE: Final = 2**17


@final
@dataclass
class Copy:
    """A parameter before a step: its weights, and its gradient before clipping, both this rank's part.

    After `compare`, `weights` holds w − w', the update with its sign turned.
    """

    param: torch.Tensor
    place: int
    weights: torch.Tensor
    gradient: torch.Tensor | None = None


@final
@dataclass(frozen=True)
class Compared:
    """What the update of each piece came to, [k] each, and the place of the parameter that each is of."""

    places: tuple[int, ...]
    norms: torch.Tensor
    products: torch.Tensor


def copied(param: torch.Tensor, place: int) -> Copy:
    """Copy the weights of the parameter at a place in the list of all."""
    return Copy(param, place, local(param).detach().clone())


def compare(copies: Sequence[Copy]) -> Compared | None:
    """‖Δ‖ and −Σ g·Δ of every copy, in pieces; None if there is nothing in any."""
    places: list[int] = []
    norms: list[torch.Tensor] = []
    products: list[torch.Tensor] = []
    for copy in copies:
        copy.weights = _subtracted(copy.weights, local(copy.param).detach())
        for difference, gradient in _pieces(copy.weights, copy.gradient):
            places.append(copy.place)
            norms.append(torch.linalg.vector_norm(difference))
            products.append(inner(difference, gradient))
    return Compared(tuple(places), gathered(norms), gathered(products)) if places else None


def product(copies: Sequence[Copy], gradients: Sequence[torch.Tensor | None]) -> Compared | None:
    """The same with other gradients, once the copies were compared."""
    pieces = [
        (copy.place, difference, part)
        for copy, gradient in zip(copies, gradients, strict=True)
        for difference, part in _pieces(copy.weights, gradient)
    ]
    if not pieces:
        return None
    products = gathered(inner(difference, part) for _, difference, part in pieces)
    return Compared(tuple(place for place, _, _ in pieces), products, products)


def inner(a: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
    """⟨a, b⟩ over all entries, of complex numbers the real part; either may be sparse, and b none, which is 0."""
    if b is None:
        return torch.zeros((), device=a.device)
    if a.layout == b.layout == torch.sparse_coo:
        both: torch.Tensor = torch.sparse.sum(a * b)
        return both
    if a.layout == torch.sparse_coo:
        a, b = b, a
    if b.layout == torch.sparse_coo:
        a, b = a[tuple(b._indices())], b._values()
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b.to(a.dtype))
    a, b = a.reshape(-1), b.reshape(-1)
    return torch.dot(a, b if a.dtype == b.dtype else b.to(a.dtype))


def _subtracted(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    if before.dtype in (torch.float16, torch.bfloat16):
        before = before.float()
    return before.sub_(after if after.device == before.device else after.to(before.device))


def _pieces(
    difference: torch.Tensor, gradient: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    whole = difference.numel() <= _PIECE or not difference.is_contiguous()
    if whole or (gradient is not None and gradient.layout != torch.strided):
        if difference.numel():
            yield difference, gradient
        return
    parts = torch.split(difference.reshape(-1), _PIECE)
    yield from zip(
        parts, [None] * len(parts) if gradient is None else torch.split(gradient.reshape(-1), _PIECE), strict=True
    )
