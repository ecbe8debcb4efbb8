"""A sample of a tensor's entries, at most 2,048 of them, evenly spaced: the same ones each time."""

from __future__ import annotations

from typing import Final

import torch

SIZE: Final = 2048


def sample(t: torch.Tensor, size: int = SIZE) -> torch.Tensor:
    """A copy of some entries of a dense tensor, shape [k], real, at least in single precision."""
    flat = t.reshape(-1)
    stride = -(-flat.numel() // size)
    taken = flat[::stride] if stride > 1 else flat
    if taken.is_complex():
        taken = torch.view_as_real(taken).reshape(-1)
    wide = taken.dtype if taken.dtype in (torch.float32, torch.float64) else torch.float32
    return taken.to(dtype=wide, copy=True)
