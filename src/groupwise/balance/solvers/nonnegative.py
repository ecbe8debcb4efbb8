"""Quadratic programs with nonnegative variables: the one that the others come down to.

    minimise  1/2 x'Qx - b'x  subject to  x >= 0,        Q = A A' of rows a_i, several b at once

With n_i = |a_i| and the slack g = b - Qx, the conditions for an optimum are x >= 0, g <= 0 and x_i g_i = 0. The
residual is their violation against what rounding leaves of it, both sides divided by n_i:

    max_i  max(g_i, -g_i where x_i > 0) / (n_i s),        s = sum_j n_j x_j + scale

where `scale` is the size of what b was computed from (the size of b, if it is data). It stays below `TOLERANCE`.

Most problems are settled by block principal pivoting (Portugal, Judice and Vicente 1994): guess which variables are
positive, solve, flip every one whose sign is wrong, three to six rounds for any size. That may cycle where the rows are
dependent; what is left over then goes to the active-set method of Lawson and Hanson (1974), which adds one variable at
a time and cannot. All right-hand sides advance together. The diagonal is raised by 2^-40, which makes dependent rows
harmless and lies below the tolerance; one step of refinement takes its effect out again where the rows are independent.

Two variables with the cosine c have a closed form: both are positive where |D| < S, with S = (b_1 + b_2) / (1 + c) and
D = (b_1 - b_2) / (1 - c) in unit rows, and are then (S + D) / 2 and (S - D) / 2; else at most one is.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

TOLERANCE = 1e-11
"""Of the residual."""

_SHIFT = 2.0**-40
_WRONG = 2.0**-39  # a sign is wrong beyond this, relative to the size of the terms
_ROUNDS = 8
_SMALL = 2**18  # up to this much arithmetic, cutting problems down costs more than it saves


def nonnegative(quadratic: Tensor, linear: Tensor, scale: Tensor, guess: Tensor | None = None) -> Tensor:
    """The minimisers x of 1/2 x'Qx - b'x over x >= 0, one for each row b of `linear`.

    Args:
        quadratic: Q [k, k], positive semi-definite. Where a row is zero, so must b be.
        linear: b [r, k].
        scale: [r], the size of the terms that each b was computed from, in the unit of b divided by a row's length.
        guess: [r, k] bool, which variables are likely to be positive.

    Returns:
        x [r, k]. Where the problem has no minimum, x is huge and nearly a direction in which it falls for ever.
    """
    if len(quadratic) == 1:
        return (linear / quadratic.where(quadratic > 0, 1.0)).clamp_(min=0)
    if len(quadratic) == 2:
        return nonnegative_of_two(quadratic, linear)
    return nonnegative_of_many(quadratic, linear, scale, linear > 0 if guess is None else guess)


def nonnegative_of_two(quadratic: Tensor, linear: Tensor) -> Tensor:
    """The same in closed form for two variables."""
    (first, product), (_, second) = quadratic.tolist()
    n = sqrt(first) or 1.0, sqrt(second) or 1.0
    cosine = product / n[0] / n[1]
    opposed, alike = max(1 + cosine, _SHIFT), max(1 - cosine, _SHIFT)
    solutions = []
    for one, two in linear.tolist():
        b = one / n[0], two / n[1]
        total, apart = (b[0] + b[1]) / opposed, (b[0] - b[1]) / alike
        if abs(apart) < total:
            x = (total + apart) / 2, (total - apart) / 2
        else:
            x = (max(b[0], 0.0), 0.0) if apart > 0 else (0.0, max(b[1], 0.0))
        solutions.append((x[0] / n[0], x[1] / n[1]))
    return torch.tensor(solutions, dtype=torch.float64)


def nonnegative_of_many(quadratic: Tensor, linear: Tensor, scale: Tensor, guess: Tensor) -> Tensor:
    """The same by pivoting, for any number of variables."""
    length = quadratic.diagonal().sqrt()
    length = torch.where(length > 0, length, 1.0)
    cosines = quadratic / length.outer(length)
    return _pivoted(cosines, linear / length, scale[:, None], guess, _ROUNDS) / length


def _pivoted(cosines: Tensor, linear: Tensor, scale: Tensor, positive: Tensor, rounds: int) -> Tensor:
    """The same where every row has length one, from a guess of what is positive."""
    if rounds == 0:
        return _one_at_a_time(cosines, linear, scale)
    x = _solve(cosines, linear, positive)
    size = torch.linalg.vector_norm(x, 1, dim=1, keepdim=True).add_(scale)
    wrong = torch.where(positive, x.neg(), torch.addmm(linear, x, cosines, alpha=-1)) > size.mul_(_WRONG)
    unsettled = [i for i, some in enumerate(wrong.any(1).tolist()) if some]
    if not unsettled:
        return x.clamp_(min=0)
    if len(unsettled) == x.shape[0]:
        return _pivoted(cosines, linear, scale, positive ^ wrong, rounds - 1)
    index = torch.tensor(unsettled)
    linear, scale, positive = (part.index_select(0, index) for part in (linear, scale, positive ^ wrong))
    return x.clamp_(min=0).index_copy_(0, index, _pivoted(cosines, linear, scale, positive, rounds - 1))


def _one_at_a_time(cosines: Tensor, linear: Tensor, scale: Tensor) -> Tensor:
    """Lawson and Hanson's: feasible throughout, and lower at every step."""
    x, positive = torch.zeros_like(linear), torch.zeros_like(linear, dtype=torch.bool)
    for _ in range(8 * len(cosines) + 64):
        target = _solve(cosines, linear, positive)
        blocked = positive & (target <= 0)
        ratio = torch.where(blocked, x / (x - target), 1.0)
        step = ratio.amin(1, keepdim=True)
        x = (x + step * (target - x)).clamp(min=0)
        positive = positive & ~(blocked & (ratio <= step))
        slack = torch.where(positive, -torch.inf, linear - x @ cosines)
        worst, entering = slack.max(1, keepdim=True)
        enters = (worst > _WRONG * (x.sum(1, keepdim=True) + scale)) & (step == 1)
        if bool((~enters & (step == 1)).all()):
            break
        positive = positive.scatter(1, entering, positive.gather(1, entering) | enters)
        x = torch.where(positive, x, 0.0)
    return x


def _solve(cosines: Tensor, linear: Tensor, positive: Tensor) -> Tensor:
    """x with (Qx)_i = b_i where positive, and 0 elsewhere; large problems are cut down to what is positive first."""
    if not bool(positive.any()):
        return torch.zeros_like(linear)
    if linear.shape[0] * cosines.shape[0] ** 3 <= _SMALL:
        return _masked(cosines, linear, positive.double())
    size = int(positive.sum(1).max())
    taken = positive.byte().argsort(dim=1, descending=True, stable=True)[:, :size]
    blocks = cosines[taken[:, :, None], taken[:, None, :]]
    x = _masked(blocks, linear.gather(1, taken), positive.gather(1, taken).double())
    return torch.zeros_like(linear).scatter(1, taken, x)


def _masked(blocks: Tensor, linear: Tensor, inside: Tensor) -> Tensor:
    """x [r, k] with (block x)_i = b_i where `inside` is 1, and 0 where it is 0."""
    column = inside[:, :, None]
    raised = (blocks * column).mul_(inside[:, None, :])
    right = linear[:, :, None] * column
    raised.diagonal(dim1=1, dim2=2).sub_(inside, alpha=1 - _SHIFT).add_(1)
    factor = torch.linalg.cholesky_ex(raised)[0]
    x = torch.cholesky_solve(right, factor)
    missed = torch.baddbmm(right, raised, x, alpha=-1).add_(x, alpha=_SHIFT)
    return x.add_(torch.cholesky_solve(missed, factor)).squeeze(2)
