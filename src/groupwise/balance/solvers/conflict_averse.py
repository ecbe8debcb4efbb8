"""The best worst case near the mean: the problem of CAGrad (Liu et al. 2021, NeurIPS), by its dual.

    maximise  min_i g_i.d  subject to  |d - g0| <= c |g0|,        g0 = J'b, b a preference

With r = c |g0| and g_w = J'w the dual is: minimise w'Gb + r sqrt(w'Gw) over the simplex, and d = g0 + r g_w / |g_w|.
Optimal is where (Jd)_i >= w'Jd, and equal where w_i > 0. With n_i = |g_i| and d = J'a the residual is the violation
over (n_i + sum_j w_j n_j) sum_j |a_j| n_j, and stays below `TOLERANCE`.

With s = |g_w| / r the same w minimises |g_w + s g0| over the simplex: for a given s it is the shortest vector in the
hull of the rows g_i + s g0. What is left is one number, the s at which |g_w(s)|^2 = (r s)^2. While the same tasks have
a positive weight, the left side is *linear* in s^2, so Newton's method on s^2 jumps from piece to piece and ends on the
exact root; a bracket keeps it from leaving.

Most problems need none of these quadratic programs: guess which weights are positive, take the root of that piece, and
flip every weight whose sign is wrong at it, three to five times. What is found so counts only if it meets the
conditions above; elsewhere, and where the hull comes near to zero, Newton's method starts from the beginning.

For two rows w = (t, 1 - t), and what is minimised is a line plus a hyperbola in t, with its minimum in closed form.

Where the hull contains zero (a Pareto-stationary point) s may shrink to nothing. The limit of d is then the projection
of g0 on the dual cone of the rows: of all best d, the one nearest to g0.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import NamedTuple, final

import torch
from torch import Tensor

from groupwise.balance.solvers.dual_cone import projected
from groupwise.balance.solvers.simplex import shortest_of_many

TOLERANCE = 1e-9
"""Of the residual."""

_STATIONARY = 2.0**-46  # |g_w|^2 over the shortest row's: the hull contains zero, as far as a Gramian can tell
_SETTLED = 1e-12
_ROUNDS = 100
_PIVOTS = 10
_EXACT = 1e-10  # of |g_w|^2 against (r s)^2
_ROUNDING = 1e-12  # of a product, relative to the lengths of its terms
_CLOSE = 2.0**-20  # |g_w|^2 over that of its terms: what is below has lost digits


def averse(gramian: Tensor, preference: Tensor, c: float) -> Tensor:
    """a [k], the weights of d = J'a; `preference` [k] adds up to 1."""
    found = averse_of_two(gramian, preference, c) if len(gramian) == 2 else None
    return averse_of_many(gramian, preference, c) if found is None else found


def averse_of_two(gramian: Tensor, preference: Tensor, c: float) -> Tensor | None:
    """The same in closed form for two rows; None where the rows are equal, or opposite."""
    (first, product), (_, second) = gramian.tolist()
    one, two = preference.tolist()
    swapped = second > first  # t is small where it is the weight of the longer row, and small numbers keep their digits
    if swapped:
        first, second, one, two = second, first, two, one
    radius = c * sqrt(max(one * one * first + 2 * one * two * product + two * two * second, 0.0))
    square = first + second - 2 * product
    along = product - second
    nearest = (first * second - product * product) / square if square > 0 else 0.0
    if not nearest > _STATIONARY * second:
        return None
    tilt = one * (first - product) - two * (second - product)
    free = radius * radius * square - tilt * tilt
    t = 0.0 if tilt > 0 else 1.0
    if free > 0:
        t = min(max((-tilt * sqrt(nearest / free / square)) - along / square, 0.0), 1.0)
    length = sqrt(t * t * first + 2 * t * (1 - t) * product + (1 - t) * (1 - t) * second)
    a = one + radius * t / length, two + radius * (1 - t) / length
    return torch.tensor(a[::-1] if swapped else a, dtype=torch.float64)


def averse_of_many(gramian: Tensor, preference: Tensor, c: float) -> Tensor:
    """The same for any number of rows."""
    toward = gramian @ preference
    length = sqrt(max(float(preference @ toward), 0.0))
    radius = c * length
    if radius == 0:
        return preference
    found = by_pivoting(gramian, preference, toward, length, radius)
    return by_newton(gramian, preference, toward, radius) if found is None else found


def by_pivoting(gramian: Tensor, preference: Tensor, toward: Tensor, length: float, radius: float) -> Tensor | None:
    """The same where guesses of what is positive settle, and the hull is far from zero; else None.

    All is in units of the rows' lengths n: the weights are n_i w_i, the products g_i.z / n_i.
    """
    lengths = gramian.diagonal().sqrt()
    least = float(lengths.min()) ** 2
    if not least > 0:
        return None
    piece = _Piece.of(gramian, toward, lengths, least)
    size, s, positive = float(preference @ lengths), length / radius, toward <= toward.mean()
    for _ in range(_PIVOTS):
        s, weights, exact = piece.root(radius, positive, s)
        total = float(torch.linalg.vector_norm(weights, 1))
        rounding = _ROUNDING * (total + s * size)
        products = torch.addmv(piece.toward, piece.cosines, weights, beta=s)
        mean = float(weights @ products)
        slack = torch.add(products, piece.inverse, alpha=-mean)
        wrong = torch.where(positive, weights, slack + rounding) < 0
        if not bool(wrong.any()):
            square, wanted = mean - s * float(weights @ piece.toward), (radius * s) ** 2
            equal = float(torch.linalg.vector_norm(slack.where(positive, 0.0), inf)) <= rounding
            met = exact and equal and wanted > _CLOSE * total * total and abs(square - wanted) <= _EXACT * square
            return torch.add(preference, weights / lengths, alpha=1 / s) if met else None
        positive = positive ^ wrong
    return None


@final
class _Piece(NamedTuple):
    """What the root of a piece is computed from.

    Attributes:
        cosines: [k, k].
        raised: the same in the Gramian to which the square of the shortest row is added everywhere.
        inverse: [k] 1 / n.
        toward: [k] t / n, t the products with g0.
        right: [k, 2] both.
        unit: the identity.
        least: the square of the shortest row.
    """

    cosines: Tensor
    raised: Tensor
    inverse: Tensor
    toward: Tensor
    right: Tensor
    unit: Tensor
    least: float

    @classmethod
    def of(cls, gramian: Tensor, toward: Tensor, lengths: Tensor, least: float) -> _Piece:
        """That of a Gramian."""
        cosines, inverse = gramian / lengths.outer(lengths), 1 / lengths
        raised = torch.addr(cosines, inverse, inverse, alpha=least)
        right = torch.stack([inverse, toward * inverse], 1)
        unit = torch.eye(len(lengths), dtype=torch.float64)
        return cls(cosines, raised, inverse, right[:, 1], right, unit, least)

    def root(self, radius: float, positive: Tensor, guess: float) -> tuple[float, Tensor, bool]:
        """s and n w [k] if exactly these weights are positive: w = p + s q, and |g_w|^2 = p'Gp + s^2 q'Gq.

        Where there is no such s, the w at the guess; whether there is.
        """
        system = self.raised.where(positive[:, None] & positive, self.unit)
        right = self.right.where(positive[:, None], 0.0)
        found = torch.cholesky_solve(right, torch.linalg.cholesky_ex(system)[0])
        (ones, both), (_, along) = (right.T @ found).tolist()
        left, free = 1 - self.least * ones, radius * radius * ones - along * ones + both * both
        exact = ones > 0 and left > 0 and free > 0
        s = sqrt(left / free) if exact else guess
        return s, found @ torch.tensor([(1 + s * both) / (ones or 1.0), -s], dtype=torch.float64), exact


def by_newton(gramian: Tensor, preference: Tensor, toward: Tensor, radius: float) -> Tensor:
    """The same from quadratic programs, wherever the hull lies."""
    w = shortest_of_many(gramian)
    nearest = float((w @ gramian @ w).clamp(min=0))
    s = nearest**0.5 / radius
    if nearest <= _STATIONARY * float(gramian.diagonal().min()):
        d = projected(gramian, preference[None])[0]
        away = d - preference
        if float(away @ gramian @ away) <= radius**2 * (1 + _SETTLED):
            return d
        s = float(gramian.diagonal().max()) ** 0.5 / radius
    s, w = _root(gramian, toward, float(preference @ toward), radius, s, w)
    return preference + w / s


def _root(gramian: Tensor, toward: Tensor, square: float, radius: float, s: float, w: Tensor) -> tuple[float, Tensor]:
    """The s with |g_w(s)| = radius s, and its w, from first guesses."""
    inside, exact = w > 0, False
    low, high = 0.0, float("inf")
    for _ in range(_ROUNDS):
        w = shortest_of_many(gramian + s * (toward[:, None] + toward) + s * s * square, inside)
        if exact and torch.equal(w > 0, inside):
            break
        inside = w > 0
        guess = _of_piece(gramian, toward, radius, inside)
        if abs(guess - s) <= _SETTLED * s:
            break
        low, high = (s, high) if float(w @ gramian @ w) > (radius * s) ** 2 else (low, s)
        exact = low < guess < high
        if not exact:
            guess = 16 * s if high == float("inf") else (low * high) ** 0.5 if low > 0 else high / 16
        s = guess
    return s, w


def _of_piece(gramian: Tensor, toward: Tensor, radius: float, inside: Tensor) -> float:
    """The root if exactly these weights stay positive: w = p + s q there, and |g_w|^2 = p'Gp + s^2 q'Gq."""
    block, least = gramian[inside][:, inside], gramian.diagonal().min()
    lengths = block.diagonal().sqrt()
    raised = (block + least) / lengths.outer(lengths)
    raised.diagonal().add_(_STATIONARY)
    right = torch.stack([1 / lengths, toward[inside] / lengths], 1)
    ones, along = (torch.linalg.solve_ex(raised, right)[0] / lengths[:, None]).unbind(1)
    p = ones / ones.sum()
    q = p * along.sum() - along
    left, slope = float(p @ block @ p), float(q @ block @ q)
    return (left / (radius**2 - slope)) ** 0.5 if left > 0 and slope < radius**2 else -1.0
