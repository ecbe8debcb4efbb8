"""Small tensors that an algorithm's class takes for a parameter.

A class can refuse a parameter for its rank, for a size of 0 or 1, for its numbers (complex, float64) or for the layout
of its gradient. So what is probed has these of the parameter, and 2 for every other size. Where a class refuses that,
the parameter's own shape is tried: it may want more than 2 of something, and its message then has the real shape.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import torch

from groupwise.select import ParameterInfo

LARGEST: Final = 2**20
"""Entries of the largest parameter that is probed at its own shape."""


class Likeness(NamedTuple):
    """The shape and dtype of a tensor in a parameter's place, and whether its gradient is sparse."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    sparse: bool

    def parameter(self) -> torch.nn.Parameter:
        """A new one on the CPU, all ones."""
        return torch.nn.Parameter(torch.ones(self.shape, dtype=self.dtype, device="cpu"))

    def dense(self) -> Likeness:
        """The same with a dense gradient."""
        return self._replace(sparse=False)

    def without_memory(self) -> torch.nn.Parameter:
        """One of this shape whose entries are all the same place in memory, for a constructor to look at."""
        return torch.nn.Parameter(torch.ones((), dtype=self.dtype, device="cpu").expand(self.shape))


def likenesses(info: ParameterInfo, trains: bool) -> tuple[Likeness, Likeness]:
    """Of a parameter a small one, and one of its own shape. What never trains may be of integers: it stands there in
    float32."""
    tensor = info.parameter
    dtype, elsewhere = (torch.float32, False) if tensor is None else (tensor.dtype, not tensor.is_cpu)
    return _likenesses(info.shape, dtype, elsewhere, info.sparse, trains)


@functools.lru_cache(maxsize=65536)
def _likenesses(
    shape: tuple[int, ...], dtype: torch.dtype, elsewhere: bool, sparse: bool, trains: bool
) -> tuple[Likeness, Likeness]:
    """float32 where the CPU's kernels are no evidence: for less precision on another device."""
    trainable = dtype.is_floating_point or dtype.is_complex
    dtype = torch.float32 if not trains or not trainable or (elsewhere and dtype.itemsize < 4) else dtype
    return Likeness(tuple(min(size, 2) for size in shape), dtype, sparse), Likeness(shape, dtype, sparse)
