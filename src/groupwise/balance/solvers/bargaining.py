"""Every task's gain is a power of its weight: the problem of Nash-MTL and FairGrad.

    (Ga)_i = share_i a_i^(-power),  a > 0

Power 1 is the Nash bargaining solution (Navon et al. 2022, ICML), 1/alpha is alpha-fairness (Ban and Ji 2024, ICML).
It is where the strictly convex 1/2 a'Ga - sum_i share_i u(a_i), u' = a^(-power), is stationary, so the solution is
unique, also where rows are dependent. With n_i = |g_i| the residual

    max_i |(Ga)_i - share_i a_i^(-power)| / (n_i sum_j n_j a_j)

stays below `TOLERANCE`. In b = n a the Gramian is that of the unit gradients, C, whatever the scales of the rows; these
go to the right-hand side. Where the power is far from 1 and the rows of very different lengths, a weight may be 1e-100
of another, and Newton's method in b or in log b alone crawls or jumps off. So the gains s are unknowns of their own:

    Cb = s,        power log b_i + log s_i = log right_i

as in primal-dual interior-point methods, where power 1 is the central path. Each round solves the linearised pair; what
grows is taken as it is, what falls as the exponential of it, so both stay positive without a line search. Five to ten
rounds for any size; some tens where lengths span sixteen orders of magnitude.

For two rows and power 1 the ratio r = b_2 / b_1 solves r^2 + c (1 - q) r = q, with c their cosine and q the ratio of
the shares.

Where some convex combination of the unit gradients is zero (a Pareto-stationary point) there is no solution: no update
gains for all. With w = b / sum b, w'Cw is the square of such a combination's length; once it is below 2^-40 the point
counts as one.
"""

from __future__ import annotations

from math import isfinite, sqrt

import torch
from torch import Tensor

from groupwise.balance.solvers.simplex import shortest
from groupwise.errors import BalanceError

TOLERANCE = 1e-12
"""Of the residual."""

_STATIONARY = 2.0**-40
_HARDLY = 2.0**-32  # the same for an iteration that did not settle
_LEVEL = 1e-14  # of the residual, where the iteration stops
_FAINT = 1e-12  # a gain that only rounding may have left, where rows cancel
_ROUNDING = 2.0**-51
_STILL = 1e-3  # the last change of log b; the next one would be about its square
_LONGEST = 8.0  # how far log b + log s is moved in one round
_ROUNDS = 200
_LEAST = torch.finfo(torch.float64).tiny


def bargained(gramian: Tensor, share: Tensor, power: float) -> Tensor | None:
    """a [k] > 0 (the smallest float where it is smaller); None at a Pareto-stationary point. No row may be zero.

    Raises `BalanceError` where the iteration does not settle: a power outside 0.01 to 10, and very unequal rows.
    """
    if power == 1 and len(gramian) == 2:
        return two_bargained(gramian, share)
    return many_bargained(gramian, share, power)


def two_bargained(gramian: Tensor, share: Tensor) -> Tensor | None:
    """The same in closed form for two rows and power 1."""
    (first, product), (_, second) = gramian.tolist()
    lengths = sqrt(first), sqrt(second)
    one, two = share.tolist()
    cosine, ratio = product / lengths[0] / lengths[1], two / one
    half = cosine * (1 - ratio) / 2
    root = sqrt(half * half + ratio)
    r = ratio / (half + root) if half > 0 else root - half
    gain = 1 + cosine * r
    if gain + r * (cosine + r) <= _STATIONARY * (1 + r) ** 2 or gain <= 0:
        return None
    b = sqrt(one / gain)
    return torch.tensor([b / lengths[0], r * b / lengths[1]], dtype=torch.float64)


def many_bargained(gramian: Tensor, share: Tensor, power: float) -> Tensor | None:
    """The same by iteration, for any number of rows and any power."""
    length = gramian.diagonal().sqrt()
    logs = length.log()
    unit = logs.mean()
    cosines = gramian / length.outer(length)
    y = _newton(cosines, share.log() + (power - 1) * (logs - unit), power)
    return None if y is None else (y - logs + (power - 1) / (power + 1) * unit).exp().clamp(min=_LEAST)


def _newton(cosines: Tensor, right: Tensor, power: float) -> Tensor | None:
    """log b, with Cb = e^right b^(-power)."""
    both = _start(cosines, right, power)
    level = _LEVEL + _ROUNDING * float(right.abs().max())
    moved = 1.0
    for rounds in range(_ROUNDS):
        b, s = both.exp().unbind()
        product = cosines @ b
        square, total = float(b @ product), float(b.sum())
        if square <= _STATIONARY * total * total:
            return None
        if not isfinite(square):
            break
        apart, missing = s - product, right - power * both[0] - both[1]
        if moved <= _STILL and float(torch.maximum(apart.abs(), s * missing.expm1().abs()).max()) <= level * total:
            faint = float(s.min()) <= _FAINT * total
            return None if faint and _is_stationary(cosines, _STATIONARY) else both[0]
        step = _step(cosines, b, s, apart, missing.clamp(-_LONGEST, _LONGEST), power)
        moved = float(step[0].abs().max())
        both += step.log1p().where(step > 0, step.clamp(min=-3.0 - rounds))
    if _is_stationary(cosines, _HARDLY):
        return None
    raise BalanceError(
        f"its equations were not solved to a relative residual of {TOLERANCE:g} in {_ROUNDS} rounds: the gradients' "
        f"norms are too far apart for a power of {power:g}"
    )


def _is_stationary(cosines: Tensor, square: float) -> bool:
    w = shortest(cosines)
    return float(w @ cosines @ w) <= square


def _start(cosines: Tensor, right: Tensor, power: float) -> Tensor:
    """log b and log s [2, k]: for low powers all b alike, for high ones what unrelated rows would have."""
    y = right / (1 + power) if power > 1 else torch.zeros_like(right)
    b = y.exp()
    product = cosines @ b
    z = product.clamp(min=0.1 * abs(float(b @ product)) / float(b.sum())).log()
    return torch.stack([y, z]) + (right - power * y - z).mean() / (1 + power)


def _step(cosines: Tensor, b: Tensor, s: Tensor, apart: Tensor, missing: Tensor, power: float) -> Tensor:
    """The changes of log b and log s [2, k]. That of log b is taken from the equation that leaves its digits."""
    root = (b / s).sqrt()
    system = cosines * root.outer(root)
    system.diagonal().add_(power)
    factor = torch.linalg.cholesky_ex(system)[0]
    u = torch.cholesky_solve((root * (s * missing + apart))[:, None], factor)[:, 0]
    along = (missing - (cosines @ (root * u) - apart) / s) / power
    change = along.where(root < power**0.5, u / (b * s).sqrt())
    return torch.stack([change, missing - power * change])
