"""`GradScaler` and the balancer: losses come unscaled, rows are taken back by the scale, `.grad` is times the scale.

A scale multiplies a loss, which is the same as starting its backward from the scale instead of 1. Methods that are not
homogeneous (FairGrad, a clip) would be wrong by the scale if they saw it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise._spelling import shown
from groupwise.errors import BalanceError


def scale_of(scaler: object, like: Tensor) -> Tensor | None:
    """The scale as a 0-dim tensor on the device of `like`; None without a scaler, or with one that is switched off."""
    if scaler is None:
        return None
    if not isinstance(scaler, torch.amp.GradScaler):
        raise BalanceError(f"scaler is a torch.amp.GradScaler, not {shown(scaler)} ({type(scaler).__name__})")
    if not scaler.is_enabled():
        return None
    one = torch.ones((), device=like.device)
    return scaler.scale(one)
