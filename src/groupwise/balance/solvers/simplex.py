"""The shortest vector in the convex hull of some rows, in terms of their Gramian.

    minimise  |sum_i w_i g_i|^2 = w'Gw  subject to  w >= 0, sum w = 1

The optimum is where no row has a smaller product with the vector than the vector itself: with n_i = |g_i|,
(Gw)_i >= w'Gw, and equal where w_i > 0. The residual is the violation, against what rounding leaves of it,

    max_i  max(w'Gw - (Gw)_i, (Gw)_i - w'Gw where w_i > 0) / (n_i sum_j w_j n_j),

and stays below `TOLERANCE`.

On the simplex w'Gw + t (sum w)^2 has the same minimiser for every t; without the constraint on the sum the minimiser
over v >= 0 of 1/2 v'(G + t 11')v - sum v is a multiple of it. With t > 0 that is a problem with a minimum even where
the hull contains zero, and with t no larger than any entry of the diagonal nothing is lost to rounding.

For two rows the weights are as g_2.(g_2 - g_1) to g_1.(g_1 - g_2), or all on the shorter row where one is negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.balance.solvers.nonnegative import nonnegative_of_many

TOLERANCE = 1e-10
"""Of the residual."""


def shortest(gramian: Tensor, guess: Tensor | None = None) -> Tensor:
    """[k] weights of the shortest vector in the hull; where several rows are zero, they share all of it.

    `guess` [k] bool says which weights are likely to be positive.
    """
    return shortest_of_two(gramian) if len(gramian) == 2 else shortest_of_many(gramian, guess)


def shortest_of_two(gramian: Tensor) -> Tensor:
    """The same in closed form for two rows."""
    (first, product), (_, second) = gramian.tolist()
    one, two = max(second - product, 0.0), max(first - product, 0.0)
    total = one + two
    return torch.tensor([one / total, two / total] if total > 0 else [0.5, 0.5], dtype=torch.float64)


def shortest_of_many(gramian: Tensor, guess: Tensor | None = None) -> Tensor:
    """The same by a quadratic program, for any number of rows."""
    least = gramian.diagonal().min()
    if not bool(least > 0):
        zero = (gramian.diagonal() <= 0).double()
        return zero / zero.sum()
    ones = torch.ones_like(gramian[:1])
    likely = ones > 0 if guess is None else guess[None]
    v = nonnegative_of_many(gramian + least, ones, least.rsqrt()[None], likely)[0]
    return v / v.sum()
