"""Where a problem is solved in two ways, by its size or by its digits, both find the same."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from groupwise.balance import spectrum
from groupwise.balance.methods import config, pcd
from groupwise.balance.solvers import nonnegative as program
from groupwise.balance.solvers.conflict_averse import by_newton, by_pivoting
from groupwise.balance.solvers.few import FEW, nonnegative_of_few
from groupwise.balance.solvers.nonnegative import nonnegative, pivoted
from tests.balance.solvers import residuals
from tests.balance.solvers.gramians import KINDS, gramians, positive_gramians

SIZES = {3: 12, 5: 12, 8: 8, FEW: 4, 40: 2}

every_kind = pytest.mark.parametrize("kind", KINDS)


def problems(kind: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Q, some b, and the size of their terms."""
    generator = torch.Generator().manual_seed(7)
    for gramian in gramians(kind, SIZES):
        given = torch.randn(1 if len(gramian) > FEW else 3, len(gramian), generator=generator, dtype=torch.float64)
        yield gramian, given @ gramian, given.abs() @ residuals.lengths(gramian)


def length(gramian: Tensor, a: Tensor) -> float:
    return float((a @ gramian @ a).clamp(min=0).sqrt())


@every_kind
def test_plain_numbers_and_tensors_find_the_same_minimum(kind: str) -> None:
    for q, b, scale in problems(kind):
        general = pivoted(q, b, scale, b > 0)
        assert residuals.nonnegative(q, b, general, scale) <= program.TOLERANCE
        found = nonnegative_of_few(q, b, scale, b > 0)
        if found is not None:
            assert residuals.nonnegative(q, b, found, scale) <= program.TOLERANCE
            assert all(length(q, x - y) <= 1e-5 * float(size) for x, y, size in zip(found, general, scale, strict=True))


def test_plain_numbers_solve_nearly_every_ordinary_problem() -> None:
    answers = [nonnegative_of_few(q, b, scale, b > 0) for q, b, scale in problems("many parameters") if len(q) <= FEW]
    assert sum(answer is None for answer in answers) <= 2


@pytest.mark.parametrize("guess", [False, True])
def test_many_large_problems_without_a_positive_variable_have_the_minimum_zero(guess: bool) -> None:
    gramian = next(gramians("many parameters", {40: 1}))
    b, scale = -torch.ones(40, 40, dtype=torch.float64), torch.ones(40, dtype=torch.float64)
    assert not nonnegative(gramian, b, scale, torch.full_like(b, guess, dtype=torch.bool)).any()


@every_kind
@pytest.mark.parametrize("c", [0.1, 0.5, 2.0])
def test_what_pivoting_finds_of_the_worst_case_newtons_method_finds_too(kind: str, c: float) -> None:
    for gramian in gramians(kind, {3: 6, 8: 4, 24: 2}):
        mean = torch.full((len(gramian),), 1 / len(gramian), dtype=torch.float64)
        toward = gramian @ mean
        size = float((mean @ toward).clamp(min=0).sqrt())
        found = by_pivoting(gramian, mean, toward, size, c * size) if size else None
        if found is not None:
            general = by_newton(gramian, mean, toward, c * size)
            assert length(gramian, found - general) <= 1e-6 * float(residuals.lengths(gramian) @ general.abs())


@every_kind
def test_equal_projections_of_a_few_independent_tasks_are_those_of_any_number(kind: str) -> None:
    for gramian in positive_gramians(kind):
        few = spectrum.solve_few(gramian)
        n = residuals.lengths(gramian)
        if few is not None:
            ones = torch.ones_like(n)
            general = spectrum.pseudo_solve(gramian / n.outer(n), ones) / n
            torch.testing.assert_close(torch.tensor(few[1]).double() * n, general * n, rtol=1e-6, atol=1e-8)
            p = torch.linspace(0.2, 0.4, len(n), dtype=torch.float64)
            one, other = config.weights_of_many(gramian, p) * n, config.weights_of_dependent(gramian, p) * n
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8 * float(other.abs().sum()))


@every_kind
@pytest.mark.parametrize("tau", [0.0, 0.02, 1.0])
def test_priority_of_two_has_a_closed_form(kind: str, tau: float) -> None:
    for gramian in gramians(kind, {2: 40}):
        n = residuals.lengths(gramian)
        scales = [1 / float(length) if length > 0 else 1.0 for length in n]
        for first in (0, 1):
            if n[first] > 0:
                found = pcd.weights_of_two(gramian, scales, first, tau)
                general = pcd.weights_of_many(gramian, scales, first, tau)
                assert length(gramian, found - general) <= 1e-5 * float(n[first] + n @ (found.abs() + general.abs()))
