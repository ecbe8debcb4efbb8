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
harmless and lies below the tolerance; one step of refinement, once the signs are right, takes its effect out again
where the rows are independent, and the signs are looked at again.

Where a variable is positive its slack is zero, and elsewhere the variable is: so a sign is wrong where x - g < 0.

Two variables with the cosine c have a closed form: both are positive where |D| < S, with S = (b_1 + b_2) / (1 + c) and
D = (b_1 - b_2) / (1 - c) in unit rows, and are then (S + D) / 2 and (S - D) / 2; else at most one is.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from groupwise.balance.solvers.few import FEW, nonnegative_of_few

TOLERANCE = 1e-11
"""Of the residual."""

_SHIFT = 2.0**-40
_WRONG = 2.0**-39  # a sign is wrong beyond this, relative to the size of the terms
_ROUNDS = 8
_STEPS = 4
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
    if guess is None:
        guess = linear > 0
        if not bool(guess.any()):
            return torch.zeros_like(linear)
    return nonnegative_of_many(quadratic, linear, scale, guess)


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
    count, variables = linear.shape
    if max(count, variables) <= FEW or (count == 1 and int(guess.sum()) <= FEW):
        found = nonnegative_of_few(quadratic, linear, scale, guess)
        if found is not None:
            return found
    return pivoted(quadratic, linear, scale, guess)


def pivoted(quadratic: Tensor, linear: Tensor, scale: Tensor, guess: Tensor) -> Tensor:
    """The same as operations of torch."""
    length = quadratic.diagonal().sqrt()
    length = torch.where(length > 0, length, 1.0)
    cosines = quadratic / length.outer(length)
    problem, linear = _Problem.of(cosines), linear / length
    guess = guess if _is_small(linear) else _likely(problem, linear, guess)
    return _pivoted(problem, linear, scale[:, None], guess, _ROUNDS).div_(length)


def _likely(problem: _Problem, linear: Tensor, guess: Tensor) -> Tensor:
    """A better guess for many large problems, from some steps of projected descent."""
    rate = 1 / (1 + float(torch.linalg.vector_norm(problem.cosines - problem.unit, dim=1).max()))
    x = linear.clamp(min=0).where(guess, 0.0).mul_(rate)
    for _ in range(_STEPS):
        x.add_(torch.addmm(linear, x, problem.cosines, alpha=-1), alpha=rate).clamp_(min=0)
    return x > 0


@final
class _Problem(NamedTuple):
    """The quadratic form of rows of length one.

    Attributes:
        cosines: [k, k].
        raised: the same with the shift on its diagonal.
        signs: the same with 1 more on its diagonal: x times it, less b, is x - g.
        unit: the identity.
        padded: `raised` with a row and a column of zeros at its end.
    """

    cosines: Tensor
    raised: Tensor
    signs: Tensor
    unit: Tensor
    padded: Tensor

    @classmethod
    def of(cls, cosines: Tensor) -> _Problem:
        """That of these cosines."""
        unit = torch.eye(len(cosines), dtype=torch.float64)
        raised = torch.add(cosines, unit, alpha=_SHIFT)
        return cls(cosines, raised, cosines + unit, unit, pad(raised, (0, 1, 0, 1)))


def _pivoted(problem: _Problem, linear: Tensor, scale: Tensor, positive: Tensor, rounds: int) -> Tensor:
    """The minimisers where every row has length one, from a guess of what is positive."""
    few = _is_small(linear)
    for left in range(rounds, 0, -1):
        face = _face(problem, positive, few)
        x = face.solve(linear)
        signed, wrong, unsettled = _signs(problem, linear, scale, x)
        if len(unsettled) < (1 if few else len(linear)):
            x += face.solve(x - signed)
            _, wrong, unsettled = _signs(problem, linear, scale, x)
            if not unsettled:
                return x.clamp_(min=0)
            if len(unsettled) < len(linear) and not few:
                index = torch.tensor(unsettled)
                b, size, guess = (part.index_select(0, index) for part in (linear, scale, positive ^ wrong))
                return x.clamp_(min=0).index_copy_(0, index, _pivoted(problem, b, size, guess, left - 1))
        positive = positive ^ wrong
    return _one_at_a_time(problem, linear, scale)


def _signs(problem: _Problem, linear: Tensor, scale: Tensor, x: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """x - g, where it is below zero by more than rounding, and the rows in which it is anywhere."""
    signed = torch.addmm(linear, x, problem.signs, beta=-1)
    wrong = signed < torch.linalg.vector_norm(x, 1, dim=1, keepdim=True).add_(scale).mul_(-_WRONG)
    return signed, wrong, [i for i, some in enumerate(wrong.any(1).tolist()) if some]


def _one_at_a_time(problem: _Problem, linear: Tensor, scale: Tensor) -> Tensor:
    """Lawson and Hanson's: feasible throughout, and lower at every step."""
    cosines, few = problem.cosines, _is_small(linear)
    x, positive = torch.zeros_like(linear), torch.zeros_like(linear, dtype=torch.bool)
    for _ in range(8 * len(cosines) + 64):
        face = _face(problem, positive, few)
        target = face.solve(linear)
        target += face.solve(linear - target @ cosines)
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


def _is_small(linear: Tensor) -> bool:
    return linear.shape[0] * linear.shape[1] ** 3 <= _SMALL


@final
class _Face(NamedTuple):
    """Which variables are positive in each row, and the factors of what is left of the problem.

    Attributes:
        taken: [r, m] the variables that the factors are of; None where they are of all.
        inside: [r, m] bool, which of these are positive.
        factor: [r, m, m].
    """

    taken: Tensor | None
    inside: Tensor
    factor: Tensor

    def solve(self, linear: Tensor) -> Tensor:
        """x [r, k] with (Qx)_i = b_i where positive, up to the shift, and 0 elsewhere."""
        right = linear if self.taken is None else linear.gather(1, self.taken)
        x = torch.cholesky_solve(right.where(self.inside, 0.0)[:, :, None], self.factor)[:, :, 0]
        return x if self.taken is None else torch.zeros_like(linear).scatter(1, self.taken, x)


def _face(problem: _Problem, positive: Tensor, few: bool) -> _Face:
    """Large problems are cut down to what is positive first."""
    if few:
        system = problem.raised.where(positive[:, :, None] & positive[:, None, :], problem.unit)
        return _Face(None, positive, torch.linalg.cholesky_ex(system)[0])
    size, count = int(positive.sum(1).max()), len(problem.raised)
    taken = positive.byte().argsort(dim=1, descending=True, stable=True)[:, :size]
    inside = positive.gather(1, taken)
    places = taken.where(inside, count)  # beyond the last variable, where the form is zero
    entries = (places[:, :, None] * (count + 1) + places[:, None, :]).flatten()
    system = problem.padded.flatten().index_select(0, entries).view(len(positive), size, size)
    system.diagonal(dim1=1, dim2=2).add_(~inside)
    return _Face(taken, inside, torch.linalg.cholesky_ex(system)[0])
