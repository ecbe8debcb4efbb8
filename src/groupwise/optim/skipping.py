"""Whether a GradScaler skipped the updates since the last step of the scheduler.

A skipped update leaves no trace in the optimizer, whose step was not called. So where no update has been noticed the
scaler is asked: it has found infinite gradients and not been updated since, or its scale has fallen, which it does for
no other reason, or it stands where it stood, and nothing has been done at all. What it holds stays on its device until
then. A scaler may serve several optimizers, so an update that was made counts, whatever the scaler found elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from groupwise import _torch
from groupwise.errors import OptimizerError


class Scaler(Protocol):
    """What `scaler=` must be: a `torch.amp.GradScaler` or its like."""

    def get_scale(self) -> float:
        """The factor that losses are multiplied by now."""


class SkippedUpdates:
    """Remembers the scale of a scaler; None is a loop without one.

    Raises `OptimizerError` for what is no scaler.
    """

    def __init__(self, scaler: Scaler | None) -> None:
        if scaler is not None and not callable(getattr(scaler, "get_scale", None)):
            raise OptimizerError(
                f"scaler must be a torch.amp.GradScaler or its like, with get_scale(), not {type(scaler).__name__}: "
                f"{scaler!r:.60}"
            )
        self._scaler = scaler
        self._before = self._now()

    def since(self, made: bool, optimizers: Sequence[object]) -> bool:
        """Whether the updates of `optimizers` since `note()` were skipped; `made` is whether one was noticed."""
        scaler = self._scaler
        enabled = getattr(scaler, "is_enabled", None)
        if scaler is None or made or (callable(enabled) and not enabled()):
            return False
        changes = [float(now) - float(then) for now, then in zip(self._now(), self._before, strict=False)]
        return not any(changes) or changes[0] < 0 or _torch.found_inf(scaler, optimizers)

    def note(self) -> None:
        """Count from now on."""
        self._before = self._now()

    def _now(self) -> tuple[torch.Tensor | float, ...]:
        return () if self._scaler is None else _torch.scaler_state(self._scaler)
