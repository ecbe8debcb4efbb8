"""The Euclidean projection onto the simplex {w >= 0, sum w = 1}.

The projection of v is max(v - theta, 0), with the one theta that makes it add up to 1. With v sorted from the largest,
theta = (v_1 + … + v_r - 1) / r for the largest r at which v_r still exceeds it (Held, Wolfe, Crowder 1974).
"""

from __future__ import annotations

import torch
from torch import Tensor


def project(v: Tensor) -> Tensor:
    """[k] the nearest point of the simplex to [k] `v`."""
    ranked = v.sort(descending=True).values
    thetas = (ranked.cumsum(0) - 1) / torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)
    return (v - thetas[(ranked > thetas).sum() - 1]).clamp(min=0)
