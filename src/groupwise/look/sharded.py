"""Models that cannot be looked at any more, since their parameters are in pieces.

A forward of a sharded model gathers its parameters from all processes, and what the operations then use are copies.
Whoever looks before sharding has the facts, and they stay true.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from groupwise._shards import is_sharded
from groupwise._torch import is_flat
from groupwise.errors import SelectorError

_WAY_OUT = (
    "look before sharding, parameters = parameters_of(model, example=…), and give what is found to GroupedOptimizer"
)


def refuse_sharded(named: Iterable[tuple[str, torch.Tensor]], modules: Iterable[torch.nn.Module]) -> None:
    """Raises `SelectorError` where a parameter is a shard (FSDP2, tensor parallel), or lies in a flat one (FSDP1)."""
    for name, tensor in named:
        if is_sharded(tensor):
            raise SelectorError(f"example: {name!r} is sharded (a DTensor): {_WAY_OUT}")
        if is_flat(tensor):
            raise SelectorError(f"example: {name!r} holds many parameters, flattened (FSDP): {_WAY_OUT}")
    for module in (inner for outer in modules for inner in outer.modules()):
        strategy = getattr(getattr(module, "sharding_strategy", None), "name", "NO_SHARD")
        if strategy != "NO_SHARD" and any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise SelectorError(f"example: the model is sharded ({type(module).__name__}, {strategy}): {_WAY_OUT}")
