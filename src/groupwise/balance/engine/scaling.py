"""Mixed precision and the balancer: losses come unscaled, rows are taken back by the scale, `.grad` is times the scale.

A scale multiplies a loss, which is the same as starting its backward from the scale instead of 1. Methods that are not
homogeneous (FairGrad, a clip) would be wrong by the scale if they saw it. What the balancer itself multiplies is never
in the half precision of an `autocast` around it: inner products would keep three digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Final

import torch
from torch import Tensor

from groupwise._spelling import shown
from groupwise._torch import may_be_in_autocast
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


def without_autocast(losses: Iterable[Tensor]) -> AbstractContextManager[object]:
    """Leave any `autocast` of the CPU or of the losses' devices; the backward keeps the dtypes of its forward."""
    return _without_autocast(losses) if may_be_in_autocast() else _NOTHING


@contextmanager
def _without_autocast(losses: Iterable[Tensor]) -> Iterator[None]:
    with ExitStack() as left:
        for kind in {"cpu", *(loss.device.type for loss in losses)}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                left.enter_context(torch.autocast(kind, enabled=False))
        yield


_NOTHING: Final = nullcontext()
