"""Shards: what an algorithm gets where a parameter is a DTensor (FSDP2, tensor parallelism).

An engine never sees a DTensor. An algorithm whose step on a tensor is its steps on the tensor's parts (SGD, Adam) is
given each rank's own part, and the step communicates nothing. Any other (Muon iterates on the whole matrix, Adafactor
keeps its rows and columns) is given the whole: weight, gradient and state are gathered, every rank makes the same step
and keeps its part. So either way a sharded step is the step of one process. The owner's state stays sharded as the
parameter is, in DTensors, which is what checkpoints read; what has another shape is the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from itertools import compress
from typing import Any, TypeAlias

import torch

from groupwise._shards import is_sharded, local, sharded_like, split_dim
from groupwise.errors import OptimizerError
from groupwise.optim.borrowed import Groups

State: TypeAlias = MutableMapping[Any, Any]


def any_sharded(groups: Groups) -> bool:
    """Whether any parameter of the groups is a DTensor."""
    return any(is_sharded(p) for group in groups for p in group["params"])


def like(t: Any, p: Any) -> Any:
    """A gradient or a state of `p`, laid out over the ranks as `p` is; partial sums are reduced.

    Raises `OptimizerError` if it is another shape: its parts may fit on some of the ranks.
    """
    if t.shape != p.shape:
        raise OptimizerError(
            f"a gradient or a state of shape {tuple(t.shape)} does not belong to a sharded parameter of shape "
            f"{tuple(p.shape)}: the parameter was resized or replaced. Call optimizer.regroup()"
        )
    if t.device_mesh == p.device_mesh and t.placements == p.placements:
        return t
    return t.redistribute(p.device_mesh, p.placements)


def of_ranks(values: torch.Tensor, t: Any, units: bool = False) -> torch.Tensor:
    """What every rank over which `t` is split has in place of `values` of shape [n]: shape [ranks, n], in one order.

    With `units`, only of the ranks that share the units of `t` (its rows; all of a vector) with this one.
    """
    from torch.distributed.tensor import DTensor, Replicate, Shard

    if not is_sharded(t):
        return values[None]
    joined = [_splits(placement, units and t.ndim > 1) for placement in t.placements]
    spread = [Shard(i) if join else Replicate() for i, join in enumerate(joined)]
    mine = values.reshape(*[1] * len(joined), -1)
    return DTensor.from_local(mine, t.device_mesh, spread, run_check=False).full_tensor().flatten(end_dim=-2)


def _splits(placement: Any, rows_stay: bool) -> bool:
    """Whether a placement splits a tensor; with `rows_stay`, whether it does so elsewhere than between rows."""
    dim = split_dim(placement)
    return dim is not None and not (rows_stay and dim == 0)


def with_local_tensors(
    groups: Groups, state: State, extra_state: State, whole: bool, call: Callable[[Groups, State], None]
) -> None:
    """Run `call(groups, state)` on plain tensors in place of the parameters, and give back what it made of them.

    Args:
        groups, state: the owner's; written as if `call` had worked on them.
        extra_state: the entries of the state that are of no parameter.
        whole: give whole tensors; else this rank's parts.
        call: what an engine does.
    """
    views = {
        p: _full_copy(p) if whole and is_sharded(p) else _local_view(p) for group in groups for p in group["params"]
    }
    local_groups: Groups = [group | {"params": [views[p] for p in group["params"]]} for group in groups]
    plain = {**extra_state, **{views[p]: _local_state(state[p], p, whole) for p in views if state.get(p)}}
    finished = False
    try:
        call(local_groups, plain)
        finished = True
    finally:
        if finished or not whole:  # parts share memory with the parameters, so their state goes with what was done
            _write_back(groups, local_groups, state, plain, views, whole)


def _write_back(
    groups: Groups,
    local_groups: Groups,
    state: State,
    plain: State,
    views: Mapping[torch.Tensor, torch.Tensor],
    whole: bool,
) -> None:
    for group, used in zip(groups, local_groups, strict=True):
        group.update({key: value for key, value in used.items() if key != "params"})
    for p, view in views.items():
        held = plain.pop(view, None)
        if held:
            state[p] = {key: _returned(value, state.get(p, {}).get(key), p, whole) for key, value in held.items()}
        if whole and is_sharded(p):
            local(p).copy_(_cut(view, p).to_local())
    state.update(plain)


def one_by_one(groups: Groups) -> Iterator[Groups]:
    """The plain parameters, then group after group with one sharded parameter: one whole tensor exists at a time."""
    plain = [_with_those(group, [not is_sharded(p) for p in group["params"]]) for group in groups]
    if any(group["params"] for group in plain):
        yield [group for group in plain if group["params"]]
    for group in groups:
        for i, p in enumerate(group["params"]):
            if is_sharded(p) and p.grad is not None:
                yield [_with_those(group, [i == j for j in range(len(group["params"]))])]


def _with_those(group: dict[str, Any], chosen: list[bool]) -> dict[str, Any]:
    """The group with those of its parameters, and their names."""
    names = group.get("param_names", ())
    kept = {"param_names": list(compress(names, chosen))} if len(names) == len(chosen) else {}
    return group | kept | {"params": list(compress(group["params"], chosen))}


def _local_view(p: torch.Tensor) -> torch.Tensor:
    if not is_sharded(p):
        return p
    view = local(p)
    view.grad = None if p.grad is None else local(like(p.grad, p))
    return view


def _full_copy(p: Any) -> torch.Tensor:
    view: torch.Tensor = p.detach().full_tensor()
    view.grad = None if p.grad is None else p.grad.full_tensor()
    return view


def _local_state(held: MutableMapping[str, Any], p: Any, whole: bool) -> MutableMapping[str, Any]:
    return {key: _plain(value, p, whole) for key, value in held.items()} if is_sharded(p) else held


def _plain(value: Any, p: Any, whole: bool) -> Any:
    """A value of the state as the engine is to see it. A whole tensor, from a plain checkpoint, is cut if need be."""
    if is_sharded(value):
        return value.full_tensor() if whole else local(like(value, p))
    cut = isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape == p.shape and not whole
    return _cut(value, p).to_local() if cut else value


def _returned(value: Any, before: Any, p: Any, whole: bool) -> Any:
    """A value that the engine left, as the owner keeps it: in a DTensor if it is shaped as what it was given."""
    local_shape = p.shape if whole or not is_sharded(p) else local(p).shape
    if not is_sharded(p) or not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape != local_shape:
        return value
    if whole:
        return _cut(value, p)
    if is_sharded(before) and before.shape == p.shape and local(before).data_ptr() == value.data_ptr():
        return before
    return sharded_like(value, p)


def _cut(whole: torch.Tensor, p: Any) -> Any:
    """A tensor that every rank has whole, laid out over the ranks as `p` is; nothing is communicated."""
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = [Replicate()] * p.device_mesh.ndim
    return DTensor.from_local(whole, p.device_mesh, everywhere, run_check=False).redistribute(placements=p.placements)
