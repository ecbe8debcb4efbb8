"""What can be found out about an optimizer by looking at it."""

from __future__ import annotations

from typing import Any, Final

import torch

from groupwise.errors import RecordError

UNSCALED: Final = 1.0
"""What gradients that need no unscaling are multiplied by."""


def inmost(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer whose step runs hooks: the one inside, where a trainer has wrapped it.

    Raises:
        RecordError: it is no optimizer, or its step runs no hooks.
    """
    inner = optimizer
    while not _runs_hooks(inner) and isinstance(getattr(inner, "optimizer", None), torch.optim.Optimizer):
        inner = inner.optimizer
    if not isinstance(inner, torch.optim.Optimizer):
        raise RecordError(f"{type(optimizer).__name__} is no torch.optim.Optimizer: give the optimizer that steps")
    if not _runs_hooks(inner):
        raise RecordError(f"the step of {type(inner).__name__} runs no hooks, so there is nothing to observe it by")
    return inner


def _runs_hooks(optimizer: Any) -> bool:
    return bool(getattr(getattr(type(optimizer), "step", None), "hooked", False))


def leaves_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step is known to leave gradients as they are: torch's own do, unless they clip or unscale."""
    if isinstance(getattr(optimizer, "grad_scale", None), torch.Tensor):
        return False
    resolution = getattr(optimizer, "resolution", None)
    if resolution is None:
        return type(optimizer).__module__.startswith("torch.optim")
    clips = resolution.clip is not None or any(group.clip is not None for group in resolution.groups)
    known = all(getattr(torch.optim, group.algorithm, None) for group in resolution.groups if group.algorithm)
    return known and not clips


def unscale_of(optimizer: torch.optim.Optimizer) -> Any:
    """What a fused step multiplies gradients by before it uses them: a `GradScaler` leaves that to it."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 / scale.double() if isinstance(scale, torch.Tensor) else UNSCALED


def table_of(optimizer: torch.optim.Optimizer) -> str | None:
    """The plan's table, where there is a plan."""
    resolution = getattr(optimizer, "resolution", None)
    return None if resolution is None else str(resolution)


def scale_of(scaler: torch.amp.GradScaler | None) -> float:
    """The present scale of a scaler, 1 where there is none. Raises `RecordError` for what is no scaler."""
    if scaler is None:
        return 1.0
    if not callable(getattr(scaler, "get_scale", None)):
        raise RecordError(f"scaler={scaler!r} is no GradScaler")
    return scaler.get_scale()
