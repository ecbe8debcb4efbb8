"""The nearest vector that has given products with some rows, in terms of their Gramian.

    minimise  |d - J'u|  subject to  J d >= t

The solution is d = J'v with v = u + x, where x >= 0 minimises 1/2 x'Gx - x'(t - Gu); with t = 0 it is the projection of
J'u on the dual cone of the rows, min v'Gv over v >= u (Lopez-Paz and Ranzato 2017, NeurIPS; Quinton and Rey 2024).
Optimal is where x >= 0, Gv >= t, and (Gv)_i = t_i where x_i > 0. The residual is the violation of these over
n_i (sum_j n_j (|u_j| + x_j) + max_j t_j / n_j), n_i = |g_i|, and stays below the `TOLERANCE` of `nonnegative`.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from groupwise.balance.solvers.nonnegative import nonnegative

_MET = 2.0**-20


def projected(gramian: Tensor, given: Tensor) -> Tensor:
    """v [r, k] for each u [k] of `given` [r, k]: the weights of the projections on the dual cone."""
    lengths = gramian.diagonal().clamp(min=0).sqrt()
    return given + nonnegative(gramian, -given @ gramian, given.abs() @ lengths)


def reaching(gramian: Tensor, given: Tensor, products: Tensor) -> Tensor | None:
    """v [k] for one u `given` and t `products`; None where no vector has all the products.

    Taken for none is also what could be had only by a vector about a million times as long as J'u and the thresholds.
    """
    unit = _units(gramian)
    size = float(given.abs() @ unit) + float(torch.linalg.vector_norm(products / unit, inf)) if len(given) else 0.0
    x = _added(gramian, products - gramian @ given, size, unit)
    return None if x is None else given + x


def reaching_alone(gramian: Tensor, products: Tensor) -> Tensor | None:
    """The same from u = 0 on."""
    if not bool((products > 0).any()):
        return torch.zeros_like(products)
    unit = _units(gramian)
    return _added(gramian, products, float(torch.linalg.vector_norm(products / unit, inf)), unit)


def _added(gramian: Tensor, missing: Tensor, size: float, unit: Tensor) -> Tensor | None:
    """The least x [k] >= 0 with Gx >= `missing`."""
    if not len(missing):
        return missing
    x = nonnegative(gramian, missing[None], torch.tensor([size], dtype=torch.float64))[0]
    missed = torch.addmv(missing, gramian, x, alpha=-1).div_(unit)
    return None if float(missed.max()) > _MET * size or float(x @ unit) * _MET > size else x


def _units(gramian: Tensor) -> Tensor:
    """[k] the lengths of the rows; 1 for one of zero."""
    lengths = gramian.diagonal().sqrt()
    return lengths.where(lengths > 0, 1.0)
