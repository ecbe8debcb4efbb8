"""The tasks' gradients of the shared parameters: the rows of the Jacobian.

A block is a matrix [t, n] whose columns belong to one or more parameters; usually there is one block for all of them,
kept from step to step. Within a parameter the entries lie in the order of its memory, so that copying a gradient in
and an update out never reorders (channels-last weights stay channels-last); inner products do not care. A parameter
that a sparse embedding reads has a block of its own, whose columns are the rows of the table that some task touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from groupwise import _torch
from groupwise._torch import as_coalesced, norms

Update: TypeAlias = tuple[Tensor, Tensor]
"""A parameter and what is to be added to its `.grad`."""

CHUNK = 2**18
"""Columns taken at a time: few enough for float32 sums to stay exact to 1e-6 and for a copy to be cheap."""

HALF = frozenset({torch.float16, torch.bfloat16})


class Slot(NamedTuple):
    """The columns of one parameter, and the strides of its gradient."""

    leaf: Tensor
    start: int
    stop: int
    strides: tuple[int, ...]

    def view(self, row: Tensor) -> Tensor:
        """Its part of [n] entries, in the shape and strides of the parameter; no copy."""
        return row.as_strided(self.leaf.shape, self.strides, row.storage_offset() + self.start)


@final
@dataclass(frozen=True, eq=False)
class Block:
    """[t, n] gradients of some parameters; `touched` are the rows of a sparse table that its columns stand for."""

    matrix: Tensor
    slots: tuple[Slot, ...]
    touched: Tensor | None = None

    def views(self, task: int) -> list[Tensor]:
        """One task's gradients, each in the shape and strides of its parameter; no copies."""
        row = self.matrix[task]
        return [slot.view(row) for slot in self.slots]

    def fill(self, task: int, found: Mapping[Tensor, Tensor]) -> None:
        """Copy one task's gradients into its row; what it does not reach is zero there."""
        row = self.matrix[task]
        _copy((row, slot, found.get(slot.leaf)) for slot in self.slots)

    def fill_all(self, found: Mapping[Tensor, Mapping[int, Tensor]]) -> None:
        """Copy the gradients of all tasks into their rows, by parameter and task; what is not there is zero."""
        rows = enumerate(self.matrix.unbind())
        _copy((row, slot, found[slot.leaf].get(task)) for task, row in rows for slot in self.slots)

    def shaped(self, update: Tensor) -> Iterator[Update]:
        """Cut [n] into what each parameter's `.grad` takes."""
        for slot in self.slots:
            if self.touched is None:
                yield slot.leaf, slot.view(update)
            else:
                size = tuple(slot.leaf.shape)
                values = update.view(len(self.touched), *size[1:])
                sparse = torch.sparse_coo_tensor(self.touched[None], values, size, check_invariants=False)
                yield slot.leaf, as_coalesced(sparse)


def _copy(places: Iterable[tuple[Tensor, Slot, Tensor | None]]) -> None:
    """Copy gradients into their slots of rows; a slot without one gets zeros."""
    views, grads, absent = [], [], []
    for row, slot, gradient in places:
        if gradient is None:
            absent.append(row[slot.start : slot.stop])
        else:
            views.append(slot.view(row))
            grads.append(gradient if gradient.layout == torch.strided else gradient.to_dense())
    if views:
        _torch.copy(views, grads)
    if absent:
        _torch.zero(absent)


@final
@dataclass(eq=False)
class Rows:
    """All blocks; rows are tasks, in one order throughout, and times `scale`, once that is known."""

    count: int
    blocks: list[Block]
    scale: float = 1.0

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """The shared parameters, in the order of the columns."""
        return tuple(slot.leaf for block in self.blocks for slot in block.slots)

    def combined(self, weights: Tensor) -> Iterator[Update]:
        """J' times [t] weights."""
        for block in self.blocks:
            yield from block.shaped(_weighted(block.matrix, weights))

    def gradients(self, weights: Tensor) -> Iterator[Update]:
        """The same, each update in memory of its own, which may become a `.grad`."""
        for block in self.blocks:
            if block.touched is not None or block.matrix.dtype in HALF:
                yield from block.shaped(_weighted(block.matrix, weights))
                continue
            w = weights.to(device=block.matrix.device, dtype=block.matrix.dtype)
            for slot in block.slots:
                own = torch.empty_strided(slot.leaf.shape, slot.strides, dtype=w.dtype, device=w.device)
                flat = own.as_strided((slot.stop - slot.start,), (1,))
                torch.mv(block.matrix[:, slot.start : slot.stop].T, w, out=flat)
                yield slot.leaf, own

    def zero_rows(self, tasks: Sequence[int]) -> None:
        """Zero the rows of some tasks."""
        for block in self.blocks:
            for task in tasks:
                block.matrix[task].zero_()


@final
class RowNorms:
    """The norms of rows by task and parameter, for as long as the rows are there; it holds no parameter."""

    def __init__(self, rows: Rows) -> None:
        self._matrices = [(block.matrix, [(slot.start, slot.stop) for slot in block.slots]) for block in rows.blocks]
        self._count, self._scale = rows.count, rows.scale

    def of(self, tasks: Sequence[int]) -> Tensor:
        """[t, p] float32 on the device, unscaled."""
        per_block = [
            torch.stack([torch.stack(_norms(matrix[task], spans)) for task in range(self._count)])
            for matrix, spans in self._matrices
        ]
        device = per_block[0].device
        return torch.cat([norms.to(device) for norms in per_block], dim=1)[[*tasks]] / self._scale


def _norms(row: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
    pieces = [row[start:stop] for start, stop in spans]
    return [norm.float() for norm in norms(pieces, torch.promote_types(torch.float32, row.dtype))]


def _weighted(matrix: Tensor, weights: Tensor) -> Tensor:
    """[n] = w' [t, n]; half-precision rows are summed in float32 and rounded once."""
    if matrix.dtype not in HALF:
        return weights.to(device=matrix.device, dtype=matrix.dtype) @ matrix
    w = weights.to(device=matrix.device, dtype=torch.float32)
    return torch.cat([(w @ part.float()).to(matrix.dtype) for part in torch.split(matrix, CHUNK, dim=1)])


Family: TypeAlias = tuple[torch.device, torch.dtype]
Layout: TypeAlias = tuple[tuple[int, ...], ...]


@final
class Buffers:
    """The memory of the blocks, kept from step to step. It knows shapes and strides, and no parameter."""

    def __init__(self) -> None:
        self._held: dict[Family, Tensor] = {}
        self._layouts: dict[Family, tuple[Layout, list[tuple[int, int, tuple[int, ...]]]]] = {}
        self.shown: RowNorms | None = None

    def clear(self) -> None:
        """Let the memory go."""
        self._held.clear()
        self._layouts.clear()

    @property
    def held(self) -> bool:
        """Whether there were rows before."""
        return bool(self._held)

    def rows(self, leaves: Sequence[Tensor], count: int) -> Rows:
        """Rows for dense leaves, one block for each device and dtype. Their content is whatever was left there."""
        families: dict[Family, list[Tensor]] = {}
        for leaf in leaves:
            families.setdefault((leaf.device, leaf.dtype), []).append(leaf)
        for key in set(self._held) - set(families):
            del self._held[key]
            self._layouts.pop(key, None)
        found = families.items()
        return Rows(count, [Block(self._matrix(key, some, count), self._slots(key, some)) for key, some in found])

    def _slots(self, key: Family, leaves: Sequence[Tensor]) -> tuple[Slot, ...]:
        """The parameters side by side; where each lies is kept for as long as all shapes and strides are the same."""
        layout = tuple((*leaf.shape, -1, *leaf.stride()) for leaf in leaves)
        known = self._layouts.get(key)
        if known is None or known[0] != layout:
            known = self._layouts[key] = layout, [(slot.start, slot.stop, slot.strides) for slot in slots(leaves)]
        return tuple(Slot(leaf, *place) for leaf, place in zip(leaves, known[1], strict=True))

    def _matrix(self, key: Family, leaves: Sequence[Tensor], count: int) -> Tensor:
        columns = sum(leaf.numel() for leaf in leaves)
        if key not in self._held or self._held[key].numel() < count * columns:
            self._held.pop(key, None)
            self._held[key] = torch.empty(count * columns, device=key[0], dtype=key[1])
        return self._held[key][: count * columns].view(count, columns)


def slots(leaves: Sequence[Tensor]) -> tuple[Slot, ...]:
    """The parameters side by side."""
    found, start = [], 0
    for leaf in leaves:
        found.append(Slot(leaf, start, start + leaf.numel(), strides_of(leaf)))
        start += leaf.numel()
    return tuple(found)


def strides_of(leaf: Tensor) -> tuple[int, ...]:
    """The strides that `backward` gives to a gradient: the parameter's own where its memory has no holes."""
    return torch.empty_like(leaf, device="meta").stride()


def block_of(leaf: Tensor, gradients: Mapping[int, Tensor], count: int) -> Block:
    """A block for one parameter, from the gradients of the tasks that reach it, dense or sparse."""
    if gradients and all(gradient.layout == torch.sparse_coo for gradient in gradients.values()):
        return _sparse_block(leaf, {task: gradient.coalesce() for task, gradient in gradients.items()}, count)
    new = torch.empty if len(gradients) == count else torch.zeros
    block = Block(new(count, leaf.numel(), device=leaf.device, dtype=leaf.dtype), slots([leaf]))
    for task, gradient in gradients.items():
        dense = gradient.to_dense() if gradient.layout != torch.strided else gradient
        block.views(task)[0].copy_(dense)
    return block


def _sparse_block(leaf: Tensor, gradients: Mapping[int, Tensor], count: int) -> Block:
    """Columns for the union of the touched rows; a gradient sparse in more than its first dimension does not occur."""
    touched = torch.unique(torch.cat([gradient.indices()[0] for gradient in gradients.values()]))
    width = leaf.numel() // max(1, leaf.shape[0])
    matrix = torch.zeros(count, len(touched) * width, device=leaf.device, dtype=leaf.dtype)
    for task, gradient in gradients.items():
        places = torch.searchsorted(touched, gradient.indices()[0])
        matrix[task].view(len(touched), width)[places] = gradient.values().reshape(len(places), width)
    return Block(matrix, (Slot(leaf, 0, matrix.shape[1], ()),), touched)
