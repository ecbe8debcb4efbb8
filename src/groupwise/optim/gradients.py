"""Gradients as clipping sees them: dense and sparse alike, read once, never brought to the host.

A sparse gradient is coalesced first: the norm of uncoalesced values is silently wrong. Norms of shards are norms of the
whole. Everything stays on the device of the gradients; norms of several devices meet on the first.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch

from groupwise import _torch
from groupwise._shards import is_sharded, local
from groupwise._torch import Check, layout_check
from groupwise.optim.clip_factors import Numbers
from groupwise.optim.shards import like, of_ranks

_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
_HALF = (torch.float16, torch.bfloat16)  # their norms would round, or overflow
_SMALL, _SEVERAL = 4096, 4  # entries, and tensors of one shape, where a copy costs less than calls; measured on a CPU


class Present(NamedTuple):
    """The parameters of some groups that have a gradient, one after another, with it; how many each group has."""

    params: list[torch.Tensor]
    gradients: list[torch.Tensor]
    sizes: list[int]

    @property
    def by_group(self) -> list[list[torch.Tensor]]:
        """The parameters, a list for each group."""
        return _cut(self.params, self.sizes)

    def of(self, places: Sequence[int]) -> Present:
        """The same of some of the groups."""
        if len(places) == len(self.sizes):
            return self
        params, gradients = ([*chain.from_iterable(_cut(own, self.sizes, places))] for own in self[:2])
        return Present(params, gradients, [self.sizes[i] for i in places])


def _cut(
    column: list[torch.Tensor], sizes: Sequence[int], places: Sequence[int] | None = None
) -> list[list[torch.Tensor]]:
    """What a column has of each group, or of those at some places."""
    ends = [*accumulate(sizes)]
    return [column[ends[i] - sizes[i] : ends[i]] for i in (range(len(sizes)) if places is None else places)]


def present_in(groups: Sequence[Mapping[str, Any]]) -> Present:
    """What the groups hold now. Each gradient is read once: where tensors are many and small, that is what costs."""
    held: list[list[torch.Tensor]] = [group["params"] for group in groups]
    params = [*chain.from_iterable(held)]
    gradients: list[Any] = [p.grad for p in params]
    if not [None for gradient in gradients if gradient is None]:
        return Present(params, gradients, [*map(len, held)])
    stepped = [p for p, gradient in zip(params, gradients, strict=True) if gradient is not None]
    sizes = [sum(p.grad is not None for p in own) for own in held]
    return Present(stepped, [gradient for gradient in gradients if gradient is not None], sizes)


def values_of(p: torch.Tensor) -> torch.Tensor:
    """The numbers in a parameter's gradient, as one dense tensor that shares memory with it."""
    gradient = p.grad
    if gradient is None:
        raise ValueError("the parameter has no gradient")
    if is_sharded(p):
        gradient = p.grad = like(gradient, p)
    if gradient.layout == torch.strided:
        return gradient
    if not gradient.is_coalesced():
        p.grad = gradient = gradient.coalesce()
    return gradient.values()


def _are_plain(params: Sequence[torch.Tensor]) -> bool:
    return _PLAIN.issuperset(map(type, params))


class Alike:
    """Which of some tensors one call may hold. What was found is kept, as places, while layouts are the same."""

    def __init__(self) -> None:
        self._same: Check | None = None
        self._batches: list[_Batch] = []
        self._back: list[int] = []
        self.dtype = torch.float32
        """Of norms and factors: float64 if any tensor is."""

    def look_at(self, params: Sequence[torch.Tensor], gradients: Sequence[Any]) -> Sequence[torch.Tensor]:
        """`values_of` each parameter, n >= 1, whose norms are asked for and which are multiplied next."""
        compiles = torch.compiler.is_compiling()
        if not compiles and self._same is not None and _are_plain(params) and self._same(gradients):
            return gradients
        tensors = [values_of(p) for p in params]
        as_they_are = all(map(operator.is_, tensors, gradients)) and all(type(t) is torch.Tensor for t in tensors)
        self._arrange(tensors, keeps=_are_plain(params) and as_they_are)
        return tensors

    def norms_of(self, tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None) -> torch.Tensor:
        """The 2-norms of any n >= 1 tensors, which need be no gradients, as a tensor on their device, shape [n].

        `dtype` is what squares are added up in, by default that of the tensors: float32 has none of norms below
        1e-22 or so and above 1e19.
        """
        compiles = torch.compiler.is_compiling()
        if compiles or self._same is None or not self._same(tensors):
            self._arrange(tensors, keeps=_are_plain(tensors))
        return self._together(self._parts(tensors, dtype), dtype)

    def norms(self, tensors: Sequence[torch.Tensor]) -> Numbers:
        """The 2-norms, accumulated in float32 at least: numbers where the tensors are on a CPU, else shape [n]."""
        parts = self._parts(tensors)
        if _is_at_hand(tensors[0]):
            found = [norm for part in parts for norm in part.tolist()]
            return [found[i] for i in self._back]
        return self._together([part.to(tensors[0].device) for part in parts])

    def _arrange(self, tensors: Sequence[torch.Tensor], keeps: bool) -> None:
        compiles = torch.compiler.is_compiling()
        self._batches = _batches(tensors, stacks=not compiles)
        self._same = layout_check(tensors) if keeps and not compiles else None
        double = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
        self.dtype = torch.float64 if double else torch.float32
        order = [i for batch in self._batches for i in batch.places]
        self._back = [place for _, place in sorted((i, place) for place, i in enumerate(order))]

    def _parts(self, tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None) -> list[torch.Tensor]:
        return [_norms(batch, [tensors[i] for i in batch.places], dtype) for batch in self._batches]

    def _together(self, parts: Sequence[torch.Tensor], dtype: torch.dtype | None = None) -> torch.Tensor:
        together = torch.cat([part.to(parts[0].device, dtype or self.dtype) for part in parts])
        in_order = self._back == [*range(len(together))]
        return together if in_order else torch.stack([together[i] for i in self._back])

    def multiply(self, tensors: Sequence[torch.Tensor], spans: Sequence[range], factors: Numbers) -> None:
        """Multiply in place the tensors of each span by its factor, as `norms` was given them.

        Those whose factor is known to be 1 are passed over. On a device nothing is known of it without waiting.
        """
        if isinstance(factors, torch.Tensor):
            for span, factor in zip(spans, factors.unbind(), strict=True):
                _multiply(tensors[span.start : span.stop], factor)
            return
        wanted = [(span, factor) for span, factor in zip(spans, factors, strict=True) if factor != 1.0]
        if not wanted:
            return
        own = [t for span, _ in wanted for t in tensors[span.start : span.stop]]
        own = [local(t) for t in own] if any(batch.sharded for batch in self._batches) else own
        numbers = torch.tensor([factor for _, factor in wanted], dtype=self.dtype).unbind()
        _torch.multiply_each(own, [n for (span, _), n in zip(wanted, numbers, strict=True) for _ in span])


def _is_at_hand(t: torch.Tensor) -> bool:
    """Whether numbers that are computed from a tensor can be read without waiting for a device."""
    return t.device.type == "cpu" and not torch.compiler.is_compiling()


class _Batch(NamedTuple):
    """Tensors of one device, type and spread over ranks, by place; `stacked` where they are small and of one shape."""

    places: list[int]
    stacked: bool
    sharded: bool


def _batches(tensors: Sequence[torch.Tensor], stacks: bool) -> list[_Batch]:
    """Tensors that one call may take, together."""
    batches = []
    for places in _alike(tensors).values():
        first, sharded = tensors[places[0]], is_sharded(tensors[places[0]])
        by_shape: dict[torch.Size, list[int]] = {}
        for i in places if stacks and first.device.type == "cpu" and not sharded else []:
            if tensors[i].numel() <= _SMALL:
                by_shape.setdefault(tensors[i].shape, []).append(i)
        stacked = [own for own in by_shape.values() if len(own) >= _SEVERAL]
        small = {i for own in stacked for i in own}
        rest = [i for i in places if i not in small]
        batches += [_Batch(own, True, sharded) for own in stacked]
        batches += [_Batch(rest, False, sharded)] if rest else []
    return batches


def _norms(batch: _Batch, tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None) -> torch.Tensor:
    """The norms of a batch. Where tensors are small, one call on all of them takes less time than one each."""
    if dtype is None and tensors[0].dtype in _HALF:
        dtype = torch.float32
    if batch.stacked:
        rows = torch.stack([*tensors]).view(len(tensors), -1)
        norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=dtype)
        return norms
    parts = [local(t) for t in tensors] if batch.sharded else tensors
    found = torch.stack([*_torch.norms(parts, dtype)])
    return _joined(found, tensors[0]) if batch.sharded else found


def _multiply(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply every tensor, in place, by one number on a device, shape []."""
    for places in _alike(tensors).values():
        parts = [local(tensors[i]) for i in places]
        _torch.multiply(parts, factor.to(parts[0].device))


def _joined(norms: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The norms of whole tensors, all split as `t` is, from those of this rank's parts: one exchange for all."""
    joined: torch.Tensor = torch.linalg.vector_norm(of_ranks(norms, t), dim=0)
    return joined


def _alike(tensors: Sequence[torch.Tensor]) -> dict[object, list[int]]:
    """Places of tensors that one foreach call may hold: same device and type, split in one way over the same ranks."""
    alike: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        spread = getattr(t, "device_mesh", None), getattr(t, "placements", None)
        alike.setdefault((t.device, t.dtype, *spread), []).append(i)
    return alike
