"""Eigenvalues of a Gramian, and which of them are zero: those below a relative cut, the rounding of their
computation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from groupwise.balance.solvers.few import FEW, solved

CUT = 2.0**-46
"""Times the number of rows: relative to the largest eigenvalue, what is below counts as zero."""

_INDEPENDENT = 2.0**-10  # the root of a determinant: no eigenvalue is below its square by more than e


def spectrum(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """The r eigenvalues above zero, rising, and their vectors [t, r]; r is the rank."""
    values, vectors = torch.linalg.eigh(gramian)
    first, last = float(values[0]), float(values[-1])
    if first > CUT * len(values) * last:
        return values, vectors
    kept = values > CUT * len(values) * last
    return values[kept], vectors[:, kept]


def opposite(first: float, product: float, second: float) -> bool:
    """Whether the cosines of two rows, from their squares and product, have an eigenvalue that counts as zero for the
    direction that both agree on: 1 + c."""
    cosine = product / sqrt(first) / sqrt(second)
    return 1 + cosine <= 2 * CUT * (1 - cosine)


def solve_few(gramian: Tensor, right: Sequence[float] | None = None) -> tuple[list[float], list[float]] | None:
    """n_i and the a with (Ga)_i = n_i b_i, b = 1 if it is not given, of a few rows; None where some are too many, or
    one of their cosines' eigenvalues may count as zero."""
    if len(gramian) > FEW:
        return None
    rows: list[list[float]] = gramian.tolist()
    n = [sqrt(row[i]) for i, row in enumerate(rows)]
    for row, length, b in zip(rows, n, right or [1.0] * len(n), strict=True):
        row.append(length * b)
    found = solved(rows)
    return None if found is None or found[1] <= _INDEPENDENT**2 else (n, found[0])


def solve_cosines(cosines: Tensor, right: Tensor) -> Tensor:
    """C^+ b for a C whose diagonal is 1, so that its least eigenvalue is at least det C / e.

    Where the determinant shows that none counts as zero, from a factorisation; elsewhere from the eigenvalues.
    """
    factor, failed = torch.linalg.cholesky_ex(cosines)
    if not int(failed) and prod(factor.diagonal().tolist()) > _INDEPENDENT:
        return torch.cholesky_solve(right[:, None], factor)[:, 0]
    return pseudo_solve(cosines, right)


def pseudo_solve(gramian: Tensor, right: Tensor) -> Tensor:
    """G^+ b, the shortest of the least-squares solutions of Gx = b; exactly 0 where b is orthogonal to G's range."""
    values, vectors = spectrum(gramian)
    along = vectors.T @ right
    along *= along.abs() > CUT * len(right) * right.norm()
    return vectors @ along.div_(values)
