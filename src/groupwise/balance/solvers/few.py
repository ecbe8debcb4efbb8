"""The same quadratic programs where so few variables are positive that plain numbers take less time than torch's calls.

Block principal pivoting as in `nonnegative`, one right-hand side after the other, without its shift: rows that are
nearly dependent, and problems that do not settle at once, are left to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from operator import mul
from typing import final

import torch
from torch import Tensor

FEW = 12
"""Up to so many variables that are positive, and right-hand sides, plain numbers take less time."""

_WRONG = 2.0**-39  # as in `nonnegative`
_DEPENDENT = 2.0**-26  # what elimination leaves of a row's square
_ROUNDS = 8

Row = Sequence[float]


@final
class _Rows(dict[int, Row]):
    """The rows of Q, each when it is asked for."""

    def __init__(self, quadratic: Tensor) -> None:
        super().__init__()
        self._quadratic = quadratic

    def __missing__(self, i: int) -> Row:
        row: Row = self._quadratic[i].tolist()
        self[i] = row
        return row


def nonnegative_of_few(quadratic: Tensor, linear: Tensor, scale: Tensor, guess: Tensor) -> Tensor | None:
    """The minimisers x [r, k] that `nonnegative` describes; None where it has to find them."""
    rows: Mapping[int, Row] = dict(enumerate(quadratic.tolist())) if len(quadratic) <= FEW else _Rows(quadratic)
    lengths = [sqrt(max(square, 0.0)) or 1.0 for square in quadratic.diagonal().tolist()]
    found = []
    for b, size, positive in zip(linear.tolist(), scale.tolist(), guess.tolist(), strict=True):
        x = _pivoted(rows, lengths, b, size, positive)
        if x is None:
            return None
        found.append(x)
    return torch.tensor(found, dtype=torch.float64)


def _pivoted(rows: Mapping[int, Row], lengths: Row, b: Row, scale: float, positive: list[bool]) -> list[float] | None:
    """One minimiser, from a guess of what is positive."""
    for _ in range(_ROUNDS):
        inside = [i for i, chosen in enumerate(positive) if chosen]
        if len(inside) > FEW:
            return None
        solution = solved([[*(rows[i][j] for j in inside), b[i]] for i in inside])
        if solution is None:
            return None
        found = solution[0]
        x, slack = [0.0] * len(b), [*b]
        for i, value in zip(inside, found, strict=True):
            x[i] = value
            slack = [left - value * entry for left, entry in zip(slack, rows[i], strict=True)]
        limit = _WRONG * (scale + sum(map(mul, lengths, map(abs, x))))
        wrong = [
            value * n < -limit if chosen else left > limit * n
            for chosen, value, left, n in zip(positive, x, slack, lengths, strict=True)
        ]
        if True not in wrong:
            return [max(value, 0.0) for value in x]
        positive = [chosen is not flips for chosen, flips in zip(positive, wrong, strict=True)]
    return None


def solved(system: list[list[float]]) -> tuple[list[float], float] | None:
    """The solution of a positive definite system, and the determinant of its cosines; None if it is hardly definite.

    A row ends with its right-hand side; the rows are used up.
    """
    squares, determinant = [row[i] for i, row in enumerate(system)], 1.0
    for i, (row, square) in enumerate(zip(system, squares, strict=True)):
        pivot = row.pop(0)
        if not pivot > _DEPENDENT * square:
            return None
        determinant *= pivot / square
        for other in system[i + 1 :]:
            factor = other.pop(0) / pivot
            other[:] = [mine - factor * its for mine, its in zip(other, row, strict=True)]
        row.append(pivot)
    found: list[float] = []
    for row in reversed(system):
        pivot, right = row.pop(), row.pop()
        found.insert(0, (right - sum(map(mul, row, found))) / pivot)
    return found, determinant
