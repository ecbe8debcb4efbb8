"""Two tasks are the commonest number, and have closed forms: these find what the general way finds."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from groupwise.balance.methods import config, grad_vac, imtl_g, pcgrad
from groupwise.balance.solvers.bargaining import many_bargained, two_bargained
from groupwise.balance.solvers.conflict_averse import averse_of_many, averse_of_two
from groupwise.balance.solvers.nonnegative import nonnegative_of_many, nonnegative_of_two
from groupwise.balance.solvers.simplex import shortest_of_many, shortest_of_two
from tests.balance.solvers import residuals
from tests.balance.solvers.gramians import KINDS, gramians

ORDERS = torch.tensor([[1, 0]])
TIMES = 250

every_kind = pytest.mark.parametrize("kind", KINDS)


def pairs(kind: str, times: int = TIMES, zero: bool = True) -> Iterator[Tensor]:
    for gramian in gramians(kind, {2: times}):
        if zero or bool((gramian.diagonal() > 0).all()):
            yield gramian


def apart(gramian: Tensor, one: Tensor, other: Tensor) -> float:
    """How far two updates are from one another, relative to the lengths of their terms."""
    n, between = residuals.lengths(gramian), one - other
    return float((between @ gramian @ between).clamp(min=0).sqrt() / (n @ (one.abs() + other.abs())).clamp(min=1e-300))


@every_kind
def test_the_shortest_vector_of_two(kind: str) -> None:
    for gramian in pairs(kind):
        found, general = shortest_of_two(gramian), shortest_of_many(gramian)
        assert residuals.shortest(gramian, found) <= 1e-15
        assert apart(gramian, found, general) <= 1e-5  # the square root of the tolerance: a square is minimised


@every_kind
def test_two_variables_that_must_not_be_negative(kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    for gramian in pairs(kind):
        given = torch.randn(3, 2, generator=generator, dtype=torch.float64)
        linear, scale = given @ gramian, given.abs() @ residuals.lengths(gramian)
        found = nonnegative_of_two(gramian, linear)
        general = nonnegative_of_many(gramian, linear, scale, linear > 0)
        assert residuals.nonnegative(gramian, linear, found, scale) <= 1e-11
        for one, other, size in zip(found, general, scale, strict=True):
            between = one - other
            assert float((between @ gramian @ between).clamp(min=0).sqrt()) <= 1e-5 * float(size)


@every_kind
@pytest.mark.parametrize("c", [0.1, 0.5, 1.0, 2.0])
def test_two_tasks_and_their_worst_case(kind: str, c: float) -> None:
    for gramian in pairs(kind, TIMES // 5):
        for preference in (torch.tensor([0.5, 0.5]).double(), torch.tensor([0.9, 0.1]).double()):
            found = averse_of_two(gramian, preference, c)
            if found is not None:
                assert residuals.averse(gramian, preference, c, found) <= 1e-9
                assert apart(gramian, found, averse_of_many(gramian, preference, c)) <= 1e-5


@every_kind
def test_two_bargain(kind: str) -> None:
    for gramian in pairs(kind, TIMES // 2, zero=False):
        for share in (torch.ones(2).double(), torch.tensor([0.2, 1.8]).double()):
            found, general = two_bargained(gramian, share), many_bargained(gramian, share, 1.0)
            n = residuals.lengths(gramian)
            gain = 1 + float(gramian[0, 1] / n[0] / n[1])
            if found is None or general is None:
                assert gain <= 1e-9
            else:
                rounding = 2.0**-49 / gain  # of what a Gramian can tell
                torch.testing.assert_close(found, general, rtol=1e-8 + rounding, atol=0)


@every_kind
def test_two_tasks_with_equal_projections_and_without_conflict(kind: str) -> None:
    for gramian in pairs(kind, TIMES // 2, zero=False):
        half = torch.full((2,), 0.5, dtype=torch.float64)
        assert apart(gramian, imtl_g.weights_of_two(gramian), imtl_g.weights_of_many(gramian)) <= 1e-9
        found = config.weights_of_two(gramian)
        assert found is not None
        assert apart(gramian, found, config.weights_of_many(gramian, half)) <= 1e-9


@every_kind
def test_surgery_and_vaccine_of_two(kind: str) -> None:
    generator = torch.Generator().manual_seed(6)
    for gramian in pairs(kind):
        found, general = pcgrad.surgery_of_two(gramian), pcgrad.surgery(gramian, ORDERS)
        torch.testing.assert_close(found, general, rtol=1e-12, atol=0)
        targets = 2 * torch.rand(1, 2, generator=generator, dtype=torch.float64) - 1
        short, long = (way(gramian, ORDERS, targets) for way in (grad_vac.vaccine_of_two, grad_vac.vaccine))
        assert apart(gramian, 1 + short[0], 1 + long[0]) <= 1e-7
        torch.testing.assert_close(short[1], long[1], rtol=1e-12, atol=1e-14, equal_nan=True)
        assert torch.equal(short[2], long[2])
