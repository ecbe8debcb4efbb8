"""Marks that authors leave on their parameters, as tags that a plan file can ask for.

Mamba and its kin set `_no_weight_decay = True` on a parameter, S4 gives it `_optim = {"lr": 1e-3, "weight_decay":
0.0}`. Optimizers do not read them; training scripts do, each for itself. Here they are the tags `no_weight_decay`,
`optim` and, for each number in `_optim`, `optim.lr=1e-3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groupwise._spelling import number

_NONE: frozenset[str] = frozenset()


def marks_of(tensor: Any) -> frozenset[str]:
    """The tags of one parameter's marks; empty where it has none."""
    marked, settings = getattr(tensor, "_no_weight_decay", False) is True, getattr(tensor, "_optim", None)
    if settings is None and not marked:
        return _NONE
    found = {"no_weight_decay"} if marked else set()
    if isinstance(settings, Mapping):
        found |= {"optim", *(f"optim.{name}={number(value)}" for name, value in settings.items())}
        found |= {"no_weight_decay"} if settings.get("weight_decay") == 0 else set()
    return frozenset(found)
