"""Tensors of which each rank holds a part: DTensors, as `fully_shard` and tensor parallelism make them.

`torch.distributed.tensor` is not imported before it is needed: where there is no DTensor, nobody pays for it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter})


def is_sharded(t: object) -> bool:
    """Whether a tensor is a DTensor."""
    return type(t) not in _PLAIN and getattr(t, "device_mesh", None) is not None


def local(t: Any) -> torch.Tensor:
    """What this rank holds of a DTensor, detached, sharing its memory; a plain tensor itself."""
    part: torch.Tensor = t.detach().to_local() if is_sharded(t) else t
    return part


def copies(t: Any) -> int:
    """How many ranks of the mesh of a DTensor hold what this one holds."""
    return math.prod(t.device_mesh.size(i) for i, placed in enumerate(t.placements) if split_dim(placed) is None)


def split_dim(placement: Any) -> int | None:
    """The dimension that a placement splits; None where it does not."""
    dim: int | None = getattr(placement, "dim", None)
    return dim


def sharded_like(local_tensor: torch.Tensor, t: Any) -> Any:
    """A DTensor laid out as the DTensor `t`, of which this rank holds `local_tensor`; nothing is communicated."""
    from torch.distributed.tensor import DTensor

    mesh, placements = t.device_mesh, t.placements
    return DTensor.from_local(local_tensor, mesh, placements, run_check=False, shape=t.shape, stride=t.stride())
