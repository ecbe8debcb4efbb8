"""Whether what a checkpoint holds for a parameter can be that parameter's.

The algorithms of `torch.optim` keep numbers, tensors of the parameter's own shape and (Adafactor) its rows and columns:
anything else was made for another parameter. Other classes may keep low-rank, blockwise or sharded state, so there only
what is certain is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from groupwise.errors import StateError
from groupwise.optim.live import OURS

_OF_SCHEDULERS = frozenset({"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"})
_OF_THE_CLASS = frozenset({"decoupled_weight_decay"})  # all that parts Adam's groups from AdamW's


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
    tensors = {key: t for key, t in state.items() if isinstance(t, torch.Tensor) and t.ndim > 0 and t.numel() > 1}
    of_torch = ":" not in algorithm
    own = any(t.shape == p.shape for t in tensors.values())
    for key, tensor in tensors.items():
        wrong = not _is_part(tensor, p) if of_torch else not own and _is_anothers(tensor, p)
        if wrong:
            raise StateError(
                f"{name!r} has shape {tuple(p.shape)}, but {key!r} in the checkpoint has {tuple(tensor.shape)}: "
                "this is the state of another parameter, or of this one before its shape changed"
            )


def _is_part(tensor: torch.Tensor, p: torch.Tensor) -> bool:
    """The shape itself, or rows and columns of it."""
    return tensor.ndim == p.ndim and all(n in (1, m) for n, m in zip(tensor.shape, p.shape, strict=True))


def _is_anothers(tensor: torch.Tensor, p: torch.Tensor) -> bool:
    """Neither smaller (a shard, a low rank) nor a product of `p`'s own dimensions (a Kronecker factor)."""
    if tensor.ndim != p.ndim or tensor.numel() < p.numel():
        return False
    return sorted(tensor.shape) == sorted(p.shape) or not set(tensor.shape) <= {1, *p.shape}
