"""Mixed precision and the balancer: losses come unscaled, rows are taken back by the scale, `.grad` is times the scale.

A scale multiplies a loss, which is the same as starting its backward from the scale instead of 1. Methods that are not
homogeneous (FairGrad, a clip) would be wrong by the scale if they saw it. What the balancer itself multiplies is never
in the half precision of an `autocast` around it: inner products would keep three digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

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


def without_autocast(losses: Iterable[Tensor]) -> AbstractContextManager[object]:
    """Leave any `autocast` of the CPU or of the losses' devices; the backward keeps the dtypes of its forward."""
    kinds = {"cpu", *(loss.device.type for loss in losses)}
    inside = [kind for kind in kinds if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)]
    return _left(inside) if inside else nullcontext()


@contextmanager
def _left(kinds: Iterable[str]) -> Iterator[None]:
    with ExitStack() as left:
        for kind in kinds:
            left.enter_context(torch.autocast(kind, enabled=False))
        yield
