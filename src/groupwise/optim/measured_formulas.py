"""What measured factors come to, as functions of norms. Everything stays on the device, and nothing waits for it."""

from __future__ import annotations

import math
from typing import Any

import torch

from groupwise.plan import GradientShare, TrustRatio, UpdateRatio


def trusted(factor: TrustRatio, weights: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """coefficient · |w| / |other|, within its bounds; 1 where a norm is 0. Shapes [n], or one number under per="group".

    Args:
        factor: the ratio.
        weights, others: the norms, [n].
    """
    if factor.per == "group":
        weights, others = torch.linalg.vector_norm(weights), torch.linalg.vector_norm(others)
    ratio = torch.clamp(factor.coefficient * weights / others, min=factor.low, max=factor.high)
    return torch.where((weights > 0) & (others > 0), ratio, torch.ones_like(ratio))


def denominator(factor: TrustRatio, weights: torch.Tensor, gradients: torch.Tensor, decay: Any) -> torch.Tensor:
    """|g| + λ |w|, what LARS divides by: [n], or one number in [1] under per="group"."""
    if factor.per == "group":
        weights, gradients = (torch.linalg.vector_norm(norms).reshape(1) for norms in (weights, gradients))
    found: torch.Tensor = gradients + decay * weights
    return found


def corrected(factor: UpdateRatio, log: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """The logarithm of the controller's next factor, of no dimension.

    Args:
        factor: the controller.
        log: the logarithm of the factor in force.
        ratio: |update| / |weights| under it, at the peak of the rate. One that is 0 or not finite corrects nothing.
    """
    error = math.log(factor.target) - torch.log(ratio)
    error = torch.where(torch.isfinite(error), error, torch.zeros_like(error))
    return torch.clamp(log + factor.speed * error, min=math.log(factor.low), max=math.log(factor.high))


def averaged(factor: GradientShare, before: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """The exponential average of squared gradient norms after another one, [n].

    It begins with the first gradient that is not 0: a zero at the start (LoRA's A while B is 0, a branch that is
    switched off) would weigh as much as a hundred steps. A square that is not finite is left out, or it would stay.
    """
    begun = torch.where(before > 0, before, squares)
    after = begun + (1 - factor.smoothing) * (squares - begun)
    return torch.where(torch.isfinite(squares), after, before)


def shared(factor: GradientShare, norms: torch.Tensor) -> torch.Tensor:
    """(|g| / geometric mean of |g|)^power of units, [units], within bounds; 1 where there was no gradient yet."""
    known = (norms > 0) & torch.isfinite(norms)
    logs = torch.where(known, norms, torch.ones_like(norms)).log()
    mean = logs.sum() / known.sum().clamp(min=1)
    ratio = torch.clamp(torch.exp(factor.power * (logs - mean)), min=factor.low, max=factor.high)
    return torch.where(known, ratio, torch.ones_like(ratio))
