"""Every solution satisfies the conditions for an optimum, for Gramians of every kind and size."""

import pytest
import torch

from groupwise.balance.solvers import bargaining, conflict_averse, nonnegative, simplex
from groupwise.balance.solvers.bargaining import bargained
from groupwise.balance.solvers.conflict_averse import averse
from groupwise.balance.solvers.dual_cone import projected, reaching
from groupwise.balance.solvers.simplex import shortest
from tests.balance.solvers import residuals
from tests.balance.solvers.gramians import KINDS, gramians, positive_gramians

FEWER = {1: 2, 2: 12, 3: 12, 5: 8, 8: 5, 16: 2, 32: 1, 64: 1}

every_kind = pytest.mark.parametrize("kind", KINDS)


def ones(k: int) -> torch.Tensor:
    return torch.ones(k, dtype=torch.float64)


@every_kind
def test_the_shortest_vector_of_a_hull_is_the_shortest(kind: str) -> None:
    for gramian in gramians(kind):
        assert residuals.shortest(gramian, shortest(gramian)) <= simplex.TOLERANCE


@every_kind
def test_a_projection_on_the_dual_cone_is_the_nearest_point_for_every_right_hand_side(kind: str) -> None:
    for gramian in gramians(kind):
        given = torch.diag(ones(len(gramian)) / len(gramian))
        moved, size = projected(gramian, given) - given, given @ residuals.lengths(gramian)
        assert residuals.nonnegative(gramian, -given @ gramian, moved, size) <= nonnegative.TOLERANCE


@every_kind
@pytest.mark.parametrize("tau", [0.0, 0.02, 1.0])
def test_given_products_are_reached_by_the_nearest_vector_or_by_none(kind: str, tau: float) -> None:
    for gramian in gramians(kind):
        given, wanted = ones(len(gramian)) / len(gramian), tau * gramian.diagonal()
        found, n = reaching(gramian, given, wanted), residuals.lengths(gramian)
        if found is None:
            # Farkas: a combination of the rows that (nearly) vanishes asks for progress
            w = shortest(gramian)
            assert tau > 0
            assert w @ gramian @ w <= 1e-4 * (w @ n) * n.max()
        else:
            size = (given @ n + tau * n.max())[None]
            linear = (wanted - gramian @ given)[None]
            moved = (found - given)[None].clamp(min=0)
            assert residuals.nonnegative(gramian, linear, moved, size) <= 10 * nonnegative.TOLERANCE


@every_kind
@pytest.mark.parametrize("c", [0.1, 0.5, 2.0])
def test_the_conflict_averse_update_has_the_best_worst_case_in_its_ball(kind: str, c: float) -> None:
    for gramian in gramians(kind, FEWER):
        mean = ones(len(gramian)) / len(gramian)
        assert residuals.averse(gramian, mean, c, averse(gramian, mean, c)) <= conflict_averse.TOLERANCE


@every_kind
@pytest.mark.parametrize("power", [0.2, 0.5, 1.0, 2.0])
def test_a_bargain_gives_each_task_its_gain_or_there_is_none(kind: str, power: float) -> None:
    for gramian in positive_gramians(kind):
        share = torch.linspace(0.5, 1.5, len(gramian), dtype=torch.float64)
        found = bargained(gramian, share, power)
        if found is None:
            assert stationary(gramian), "there was a bargain to be had"
        else:
            assert residuals.bargained(gramian, share, power, found) <= bargaining.TOLERANCE


def stationary(gramian: torch.Tensor) -> bool:
    """Whether some convex combination of the unit gradients is zero, as far as rounding tells."""
    n = residuals.lengths(gramian)
    cosines = gramian / n.outer(n)
    w = shortest(cosines)
    return bool(w @ cosines @ w <= 1e-9)


@every_kind
@pytest.mark.parametrize("power", [0.1, 10.0])
def test_even_extreme_fairness_and_its_opposite_are_solved(kind: str, power: float) -> None:
    for gramian in positive_gramians(kind):
        found = bargained(gramian, ones(len(gramian)), power)
        if found is None:
            assert stationary(gramian), "there was a bargain to be had"
        else:
            assert residuals.bargained(gramian, ones(len(gramian)), power, found) <= bargaining.TOLERANCE


def test_a_weight_too_small_for_a_float_is_the_smallest_and_the_other_gains_are_as_asked() -> None:
    """At power 0.01, lengths sixteen orders of magnitude apart ask for weights of 1e-1600."""
    for gramian in positive_gramians("scales from 1e-8 to 1e8"):
        found = bargained(gramian, ones(len(gramian)), 0.01)
        assert found is not None
        heard = found > 1e-300
        gains = (gramian @ found)[heard]
        off = (gains - found[heard] ** -0.01).abs() / residuals.lengths(gramian)[heard]
        assert bool((found > 0).all())
        assert float(off.max() / (residuals.lengths(gramian) @ found)) <= bargaining.TOLERANCE


@pytest.mark.parametrize("scale", [2.0**-48, 2.0**48])
def test_a_power_of_two_on_the_gramian_changes_no_bit_of_a_solution(scale: float) -> None:
    for gramian in gramians("many parameters", {2: 5, 7: 5, 24: 2}):
        mean = ones(len(gramian)) / len(gramian)
        assert torch.equal(shortest(gramian), shortest(gramian * scale))
        assert torch.equal(projected(gramian, mean[None]), projected(gramian * scale, mean[None]))
        assert torch.allclose(averse(gramian, mean, 0.5), averse(gramian * scale, mean, 0.5), rtol=1e-12, atol=0)
