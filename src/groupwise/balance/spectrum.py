"""Eigenvalues of a Gramian, and which of them are zero: those below a relative cut, the rounding of their
computation."""

from __future__ import annotations

import torch
from torch import Tensor

CUT = 2.0**-46
"""Times the number of rows: relative to the largest eigenvalue, what is below counts as zero."""


def spectrum(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """The r eigenvalues above zero, rising, and their vectors [t, r]; r is the rank."""
    values, vectors = torch.linalg.eigh(gramian)
    kept = values > CUT * len(values) * values[-1]
    return values[kept], vectors[:, kept]


def pseudo_solve(gramian: Tensor, right: Tensor) -> Tensor:
    """G^+ b, the shortest of the least-squares solutions of Gx = b; exactly 0 where b is orthogonal to G's range."""
    values, vectors = spectrum(gramian)
    along = vectors.T @ right
    along = torch.where(along.abs() > CUT * len(right) * right.norm(), along, 0.0)
    return vectors @ (along / values)
