"""The shortest vector in the convex hull of some rows, in terms of their Gramian.

    minimise  |sum_i w_i g_i|^2 = w'Gw  subject to  w >= 0, sum w = 1

The optimum is where no row has a smaller product with the vector than the vector itself: with n_i = |g_i|,
(Gw)_i >= w'Gw, and equal where w_i > 0. The residual is the violation, against what rounding leaves of it,

    max_i  max(w'Gw - (Gw)_i, (Gw)_i - w'Gw where w_i > 0) / (n_i sum_j w_j n_j),

and stays below `TOLERANCE`.

On the simplex w'Gw + t (sum w)^2 has the same minimiser for every t; without the constraint on the sum the minimiser
over v >= 0 of 1/2 v'(G + t 11')v - sum v is a multiple of it. With t > 0 that is a problem with a minimum even where
the hull contains zero, and with t no larger than any entry of the diagonal nothing is lost to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groupwise.balance.solvers.nonnegative import nonnegative

TOLERANCE = 1e-10
"""Of the residual."""


def shortest(gramian: Tensor) -> Tensor:
    """[k] weights of the shortest vector in the hull; where several rows are zero, they share all of it."""
    least = gramian.diagonal().min()
    if not bool(least > 0):
        zero = (gramian.diagonal() <= 0).double()
        return zero / zero.sum()
    v = nonnegative(gramian + least, torch.ones_like(gramian[:1]), least.rsqrt()[None])[0]
    return v / v.sum()
