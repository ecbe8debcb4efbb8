"""Every task's gain is a power of its weight: the problem of Nash-MTL and FairGrad.

    (Ga)_i = share_i a_i^(-power),  a > 0

Power 1 is the Nash bargaining solution (Navon et al. 2022, ICML), 1/alpha is alpha-fairness (Ban and Ji 2024, ICML).
It is where the strictly convex 1/2 a'Ga - sum_i share_i u(a_i), u' = a^(-power), is stationary, so the solution is
unique, also where rows are dependent, and damped Newton finds it from anywhere: five to ten rounds, for any size. With
n_i = |g_i| the residual

    max_i |(Ga)_i - share_i a_i^(-power)| / (n_i sum_j n_j a_j)

stays below `TOLERANCE`. In b = n a the Gramian is that of the unit gradients, whatever the scales of the rows. Where
some convex combination of these is zero (a Pareto-stationary point) there is no solution: no update gains for all. With
w = b / sum b, w'Cw is the square of such a combination's length; once it is below 2^-40 the point counts as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-12
"""Of the residual."""

_STATIONARY = 2.0**-40
_SETTLED = 1e-18
_LEVEL = 1e-14
_ROUNDS = 200


def bargained(gramian: Tensor, share: Tensor, power: float) -> Tensor | None:
    """a [k] > 0; None at a Pareto-stationary point. No row may be zero."""
    length = gramian.diagonal().sqrt()
    unit = length.log().mean().exp()
    cosines = gramian / length.outer(length)
    right = share * (length / unit) ** (power - 1)
    b = _newton(cosines, right, power)
    if b is None:
        return None
    a: Tensor = b / length * unit ** ((power - 1) / (power + 1))
    return a


def _newton(cosines: Tensor, right: Tensor, power: float) -> Tensor | None:
    """b with Cb = right b^(-power)."""
    b = right ** (1 / (1 + power))
    square = float(b @ cosines @ b)
    if square <= _STATIONARY * float(b.sum()) ** 2:
        return None
    along: float = (float(b @ b) / square) ** (1 / (1 + power))
    b = b * along
    for _ in range(_ROUNDS):
        gain = right * b**-power
        slope = cosines @ b - gain
        hessian = cosines + torch.diag(power * gain / b)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if int(failed):
            return None
        step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
        decrement, square = float(-(slope @ step)), float(b @ cosines @ b)
        b = b + _damped(b, step, cosines, right, power, decrement) * step
        if square <= _STATIONARY * float(b.sum()) ** 2:
            return None
        if decrement <= _SETTLED * square and bool(slope.abs().max() <= _LEVEL * b.sum()):
            break
    return b


def _damped(b: Tensor, step: Tensor, cosines: Tensor, right: Tensor, power: float, decrement: float) -> float:
    """The first of 1, 1/2, 1/4, ... times the longest step that stays positive, by which the function falls as it
    should."""
    shrinking = float((-step / b).max())
    length = 1.0 if shrinking < 0.9 else 0.9 / shrinking
    relative = step / b
    straight, curved = float(step @ (cosines @ b)), float(step @ (cosines @ step))
    for _ in range(50):
        fall = _utility(relative * length, right, b, power) - length * straight - 0.5 * length**2 * curved
        if fall >= 0.1 * length * decrement or decrement <= 1e-12 * abs(straight):
            break
        length /= 2
    return length


def _utility(relative: Tensor, right: Tensor, b: Tensor, power: float) -> float:
    """sum_i right_i (u(b_i (1 + relative_i)) - u(b_i)), without cancellation."""
    logs = relative.log1p()
    if power == 1:
        return float(right @ logs)
    return float((right * b ** (1 - power)) @ torch.expm1((1 - power) * logs)) / (1 - power)
