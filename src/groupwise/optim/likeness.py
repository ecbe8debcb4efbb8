"""Small tensors that an algorithm's class takes for a parameter.

A class can refuse a parameter for its rank, for a size of 0 or 1, for its numbers (complex, float64) or for the layout
of its gradient. So what is probed has these of the parameter, and 2 for every other size. Where a class refuses that,
the parameter's own shape is tried: it may want more than 2 of something, and its message then has the real shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch

from groupwise.select import ParameterInfo

LARGEST: Final = 2**20
"""Entries of the largest parameter that is probed at its own shape."""


@dataclass(frozen=True)
class Likeness:
    """The shape and dtype of a tensor in a parameter's place, and whether its gradient is sparse."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    sparse: bool

    def parameter(self) -> torch.nn.Parameter:
        """A new one on the CPU, all ones."""
        return torch.nn.Parameter(torch.ones(self.shape, dtype=self.dtype, device="cpu"))

    def dense(self) -> Likeness:
        """The same with a dense gradient."""
        return replace(self, sparse=False)

    def without_memory(self) -> torch.nn.Parameter:
        """One of this shape whose entries are all the same place in memory, for a constructor to look at."""
        return torch.nn.Parameter(torch.ones((), dtype=self.dtype, device="cpu").expand(self.shape))


def small(info: ParameterInfo, trains: bool) -> Likeness:
    """The likeness of a parameter. What never trains may be of integers: it stands there in float32."""
    return Likeness(tuple(min(size, 2) for size in info.shape), _dtype(info, trains), info.sparse)


def whole(info: ParameterInfo, trains: bool) -> Likeness:
    """The parameter's own shape."""
    return Likeness(info.shape, _dtype(info, trains), info.sparse)


def _dtype(info: ParameterInfo, trains: bool) -> torch.dtype:
    """The parameter's dtype, float32 where the CPU's kernels are no evidence: for less precision on another device."""
    dtype = torch.float32 if info.parameter is None else info.parameter.dtype
    elsewhere = info.parameter is not None and info.parameter.device.type != "cpu"
    trainable = dtype.is_floating_point or dtype.is_complex
    return torch.float32 if not trains or not trainable or (elsewhere and dtype.itemsize < 4) else dtype
