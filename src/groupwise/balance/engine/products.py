"""The Gramian of the rows, at any scale.

Products are taken in the rows' own precision (half precision: float32), 2^18 columns at a time, and added in float64.
Squares of very small or very large gradients leave the range of float32 long before the gradients do; where a
diagonal entry shows it, the rows are brought to a largest entry of 1 first and the scale is put back in float64. So
A(sJ) = s A(J) holds for every s that the gradients themselves survive.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from groupwise.balance.engine.rows import CHUNK, Rows

_SMALLEST, _LARGEST = 1e-26, 1e34  # squares beyond these have lost digits, or may have


def gramian(rows: Rows, peaks: Tensor | None = None) -> Tensor:
    """[t, t] float64 on the device of the first block; rows are divided by `peaks` before they are multiplied."""
    total: Tensor | None = None
    for block in rows.blocks:
        for part in torch.split(block.matrix, CHUNK, dim=1):
            product = outer(part if peaks is None else part / peaks.to(part.device, part.dtype)[:, None])
            total = product if total is None else total + product.to(total.device)
    return torch.zeros(rows.count, rows.count, dtype=torch.float64) if total is None else total


def outer(part: Tensor) -> Tensor:
    """[t, t] float64 inner products of the rows of [t, n]."""
    if part.dtype in {torch.float16, torch.bfloat16}:
        part = part.float()
    if part.is_cuda and part.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        part = part.double()  # ten bits of mantissa would not separate a conflict from none
    return (part @ part.mH).real.double()


def rescaled(rows: Rows, found: Tensor) -> Tensor:
    """[t, t] on the CPU: the Gramian `found` there, taken again at another scale if it lost range."""
    diagonal = found.diagonal()
    if bool(((diagonal > _SMALLEST) & (diagonal < _LARGEST)).all()) or not rows.blocks:
        return found
    peaks = torch.stack([_peak([block.matrix[task] for block in rows.blocks]) for task in range(rows.count)])
    scales = torch.where((peaks > 0) & torch.isfinite(peaks), peaks, 1.0)
    scales = torch.exp2(torch.log2(scales).round())  # powers of two: exact
    if bool((torch.log2(scales).abs() > 120).any()):
        return found  # float32 cannot hold such a scale
    return gramian(rows, scales).cpu() * scales[:, None] * scales


def _peak(pieces: Sequence[Tensor]) -> Tensor:
    """The largest entry, float64 on the CPU."""
    return torch.stack([piece.abs().amax().double().cpu() for piece in pieces if piece.numel()]).amax()
