"""Tables that get more rows or fewer, and what becomes of the moments of those that stay.

A vocabulary grows, a point cloud is pruned: the parameter is another tensor, or has another size, but most of its rows
are what they were. Which old row each row was is an *index*: -1 for a row that is new. State of the parameter's own
shape moves along row by row, and a new row starts at zero, if that is how the algorithm starts (it is tried out: Rprop
starts at its rate, ASGD at the weight). Anything else (Adafactor's factors) belongs to the whole and cannot follow.

A new row under Adam begins where the bias correction has ended: its first update is (1 - beta1) / sqrt(1 - beta2),
about 3 times the rate under the usual betas, and the largest 6.6 times. Gaussian splatting does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from groupwise._shards import is_sharded
from groupwise.errors import OptimizerError

RowsGiven: TypeAlias = "torch.Tensor | Sequence[int] | Sequence[bool]"
"""A mask over the old rows (those kept come first, in order), or for each new row the old one that it was, or -1."""


def same_but_for_rows(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether two shapes differ in their first dimension at most."""
    return len(old) == len(new) > 0 and tuple(old[1:]) == tuple(new[1:])


def first_rows(old: int, new: int) -> torch.Tensor:
    """The index of a table whose rows stay at its front: cut at its end, or followed by new ones."""
    return torch.cat([torch.arange(min(old, new)), torch.full((max(new - old, 0),), -1)])


def front_is_kept(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Whether the front rows of `new` are those of `old`, value by value; False where that cannot be told."""
    if old.is_meta or new.is_meta or is_sharded(old) or is_sharded(new):
        return False
    count = min(old.shape[0], new.shape[0])
    return torch.equal(old.detach()[:count].to(new.device, new.dtype), new.detach()[:count])


def index_of(given: RowsGiven, old: int, new: int) -> torch.Tensor:
    """What the caller said about the rows of a table, as an index of shape [new].

    Raises `OptimizerError` if it does not fit a table that had `old` rows and has `new`.
    """
    given_index = torch.as_tensor(given).detach().cpu()
    if given_index.ndim != 1 or given_index.is_floating_point() or given_index.is_complex():
        raise OptimizerError(
            f"give a mask over the {old} old rows, or for each of the {new} rows the old one that it was, or -1; "
            f"this has {given_index.ndim} dimensions and dtype {given_index.dtype}"
        )
    if given_index.dtype == torch.bool:
        return _index_of_mask(given_index, old, new)
    if len(given_index) != new:
        raise OptimizerError(
            f"{len(given_index)} entries, but there are {new} rows now: one for each, -1 for a new one"
        )
    if new and not (int(given_index.min()) >= -1 and int(given_index.max()) < old):
        raise OptimizerError(
            f"entries run from -1 (new) to {old - 1}; this has {int(given_index.min())} to {int(given_index.max())}"
        )
    return given_index.to(torch.int64)


def _index_of_mask(mask: torch.Tensor, old: int, new: int) -> torch.Tensor:
    kept = mask.nonzero().flatten()
    if len(mask) != old:
        raise OptimizerError(f"a mask of {len(mask)} entries, but there were {old} rows")
    if len(kept) > new:
        raise OptimizerError(f"the mask keeps {len(kept)} rows, but there are {new} now")
    return torch.cat([kept, torch.full((new - len(kept),), -1)])


def moved(state: Mapping[str, Any], index: torch.Tensor, p: torch.Tensor) -> dict[str, Any] | None:
    """The state of a table, its rows moved as `index` says; None if it cannot follow: not all of it has its rows."""
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor) and value.ndim > 0]
    shapes = {tuple(value.shape) for value in tensors}
    whole = not is_sharded(p) and not any(map(is_sharded, tensors))
    if not whole or len(shapes) > 1 or not all(_are_rows(shape, index, p) for shape in shapes):
        return None
    return {key: _moved(v, index, p) if isinstance(v, torch.Tensor) and v.ndim > 0 else v for key, v in state.items()}


def _are_rows(shape: tuple[int, ...], index: torch.Tensor, p: torch.Tensor) -> bool:
    largest = int(index.max()) if len(index) else -1
    return len(index) == p.shape[0] and same_but_for_rows(shape, p.shape) and largest < shape[0]


def _moved(value: torch.Tensor, index: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    new = torch.zeros_like(p, dtype=value.dtype, device=value.device, requires_grad=False)
    kept = index >= 0
    new[kept.to(new.device)] = value.detach()[index[kept].to(value.device)]
    return new
