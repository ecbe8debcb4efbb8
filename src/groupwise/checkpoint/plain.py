"""Plain data: what a checkpoint holds, so that reading it runs no code.

Tensors, numbers, text, None, and dicts, lists and tuples of them. Their subclasses become what they are a kind of; all
else is refused when it is saved, since it would be refused when it is read.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, Final

import torch

from groupwise._shards import is_sharded
from groupwise._spelling import shown
from groupwise.errors import StateError

DEEPEST: Final = 64
"""Levels of nesting."""


def plain(value: Any, where: str, level: int = 0) -> Any:
    """`value` as plain data; tensors are detached, not copied.

    Raises:
        StateError: something in it is not plain; `where` and the keys below it say what.
    """
    if level > DEEPEST:
        raise StateError(f"{where} nests deeper than {DEEPEST} levels, or holds itself")
    if isinstance(value, torch.Tensor):
        return _tensor(value, where)
    if isinstance(value, Mapping):
        return {
            _key(key, where, level): plain(entry, f"{where}[{shown(key)}]", level + 1) for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        entries = (plain(entry, f"{where}[{i}]", level + 1) for i, entry in enumerate(value))
        return tuple(entries) if isinstance(value, tuple) else list(entries)
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise StateError(
        f"{where} is {type(value).__name__}, which is not plain data: a checkpoint holds tensors, numbers, text, "
        "dicts, lists and tuples"
    )


def _key(key: Any, where: str, level: int) -> Any:
    if isinstance(key, tuple):
        if level > DEEPEST:
            raise StateError(f"{where} has a key that nests deeper than {DEEPEST} levels")
        return tuple(_key(part, where, level + 1) for part in key)
    return _scalar(key, f"{where}: the key {shown(key)}")


def _tensor(value: torch.Tensor, where: str) -> torch.Tensor:
    if is_sharded(value):
        raise StateError(f"{where} is sharded over several processes: save it with torch.distributed.checkpoint")
    if value.is_meta:
        raise StateError(f"{where} is on the meta device and has no values")
    return value.detach()
