"""Whether what a checkpoint holds for a parameter can be that parameter's.

What a class of `torch.optim` keeps is known from a step of it on a small tensor whose sizes all differ: an entry has
the parameter's shape, is a single number, or has a shape made from the parameter's sizes (the rows and columns of
Adafactor). Anything else was made for another parameter, and is refused. Other classes may keep low-rank, blockwise or
sharded state that only begins at some size, so there only what is certain is refused; a step then says the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from groupwise.errors import OptimizerError, StateError
from groupwise.optim.live import names_of
from groupwise.optim.probe import OURS, Shape, shapes_of_state

_OF_SCHEDULERS = frozenset({"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"})
_OF_THE_CLASS = frozenset({"decoupled_weight_decay"})  # all that parts Adam's groups from AdamW's


_WHOLE = (0, 1, 2, 3, 4, 5, 6, 7)
"""The axes of a parameter, in order, as many as it has."""

_OF_DTYPES = ("dtype", "scalar type", "ScalarType")
"""What torch's errors about tensors of two types say, one or another."""


def same_algorithm(values: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    """Whether saved group values are of a live group's algorithm.

    A checkpoint of ours says so. One of a plain torch optimizer is known by its hyperparameters: another version of a
    class has more of them or fewer, another class has both.
    """
    if "algorithm" in values:
        return bool(values["algorithm"] == group["algorithm"])
    theirs = set(values) - _OF_SCHEDULERS - set(OURS)
    ours = set(group) - _OF_SCHEDULERS - set(OURS)
    return theirs <= ours or ours <= theirs


def foreign_keys(values: Mapping[str, Any]) -> frozenset[str]:
    """The keys of saved group values that say which class wrote them, in a checkpoint that does not say it itself."""
    return frozenset() if "algorithm" in values else _OF_THE_CLASS


def check_shapes(name: str, p: torch.Tensor, state: Mapping[str, Any], algorithm: str) -> None:
    """Raise `StateError` if `state` was made for a parameter of another shape than `p`."""
    made = None if ":" in algorithm else _shapes_made_by(algorithm, p.ndim)
    for key, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and not _fits(tensor, key, p, state, made):
            raise StateError(
                f"{name!r} has shape {tuple(p.shape)}, but {key!r} in the checkpoint has {tuple(tensor.shape)}: "
                "this is the state of another parameter, or of this one before its shape changed"
            )


def _fits(
    tensor: torch.Tensor, key: str, p: torch.Tensor, state: Mapping[str, Any], made: Mapping[str, Shape] | None
) -> bool:
    """Whether an entry can be of `p`, by what its class has `made`; None for a class that is not of `torch.optim`."""
    if made is not None:
        return _is_made(tensor, p, made.get(key))
    whole = any(isinstance(t, torch.Tensor) and t.shape == p.shape for t in state.values())
    return whole or tensor.numel() <= 1 or not _is_anothers(tensor, p)


def explain(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any], error: Exception) -> None:
    """Raise an `OptimizerError` for the `error` of a class's step, if it is known what led to it: a tensor with another
    shape or dtype than its state, or a sparse gradient under a class that takes none."""
    _check_reshaped(groups, state, error)
    _check_retyped(groups, state, error)
    _check_sparse(groups, error)


def _check_reshaped(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any], error: Exception) -> None:
    """Raise an `OptimizerError` for a class's `error` that is about state from before a tensor was reshaped."""
    for group in groups:
        for name, p in zip(names_of(group), group["params"], strict=True):
            try:
                check_shapes(name, p, state.get(p) or {}, group.get("algorithm", ":"))
            except StateError:
                held = (tuple(t.shape) for t in state[p].values() if isinstance(t, torch.Tensor) and t.shape != p.shape)
                before = next((shape for shape in held if shape), ())
                raise OptimizerError(
                    f"{name!r} has got the shape {tuple(p.shape)} in place, and its state is of the shape {before}: "
                    "call optimizer.regroup(model=model) after such a change (resize_token_embeddings makes one). It "
                    "keeps the state of the rows that are the first of both; rows= says where others are the same"
                ) from error


def _check_retyped(groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any], error: Exception) -> None:
    """Raise an `OptimizerError` for a class's `error` that is about state from before a tensor changed its dtype."""
    if not isinstance(error, RuntimeError) or not any(word in str(error) for word in _OF_DTYPES):
        return
    for group in groups:
        for name, p in zip(names_of(group), group["params"], strict=True):
            made = [t for t in (state.get(p) or {}).values() if isinstance(t, torch.Tensor) and t.ndim > 0]
            before = next((t.dtype for t in made if t.is_floating_point() and t.dtype != p.dtype), None)
            if before is not None and p.is_floating_point():
                now, old = (str(dtype).removeprefix("torch.") for dtype in (p.dtype, before))
                raise OptimizerError(
                    f"{name!r} is {now} now, and its state is {old}, of before the model's dtype changed, as by "
                    f"model.to(torch.{now}), so that the step fails: optimizer.load_state_dict(optimizer.state_dict()) "
                    "brings the state to the parameters' dtype"
                ) from error


def _check_sparse(groups: Sequence[Mapping[str, Any]], error: Exception) -> None:
    """Raise an `OptimizerError` for a class's `error` that is about a sparse gradient."""
    if not isinstance(error, RuntimeError) or "sparse" not in str(error):
        return
    for group in groups:
        for name, p in zip(names_of(group), group["params"], strict=True):
            if p.grad is not None and p.grad.is_sparse:
                raise OptimizerError(
                    f"{name!r} has a sparse gradient, which {group.get('algorithm')} does not take: {error}. Give it a "
                    'rule of its own, as Rule(…, optimizer="SparseAdam", lr=…), and regroup; or build the table with '
                    "sparse=False"
                ) from error


@functools.cache
def _shapes_made_by(algorithm: str, rank: int) -> Mapping[str, Shape]:
    """The shapes that a class of `torch.optim` gives its entries of state for parameters of a rank."""
    cls = getattr(torch.optim, algorithm, None)
    return shapes_of_state(cls, rank) if isinstance(cls, type) else {}


def _is_made(tensor: torch.Tensor, p: torch.Tensor, made: Shape | None) -> bool:
    """Whether a tensor has the shape that its class gives such an entry. One that was not seen (an option's, such as
    amsgrad's maximum) has the parameter's own shape or is a number."""
    if made is None:
        return tensor.shape == p.shape or tensor.ndim == 0
    if not made:
        return tensor.numel() == 1
    if made == _WHOLE[: p.ndim]:
        return tensor.shape == p.shape
    sizes = [1 if axis is None else p.shape[axis] for axis in made]
    return list(tensor.shape) == sizes


def _is_anothers(tensor: torch.Tensor, p: torch.Tensor) -> bool:
    """Neither smaller (a shard, a low rank) nor a product of `p`'s own dimensions (a Kronecker factor)."""
    if tensor.ndim != p.ndim or tensor.numel() < p.numel():
        return False
    return sorted(tensor.shape) == sorted(p.shape) or not set(tensor.shape) <= {1, *p.shape}
