"""The same optima by other means: enumeration of active sets, scipy, closed forms."""

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize, nnls
from torch import Tensor

from groupwise.balance.solvers.bargaining import bargained
from groupwise.balance.solvers.conflict_averse import averse
from groupwise.balance.solvers.dual_cone import projected, reaching
from groupwise.balance.solvers.simplex import shortest

GENERATOR = torch.Generator().manual_seed(3)


def drawn(k: int, n: int) -> Tensor:
    return torch.randn(k, n, generator=GENERATOR, dtype=torch.float64)


def by_enumeration(jacobian: Tensor) -> float:
    """The square of the shortest vector in the hull: the best affine minimiser over every subset of rows."""
    k, best = len(jacobian), float("inf")
    for chosen in chain.from_iterable(combinations(range(k), size) for size in range(1, k + 1)):
        rows = jacobian[list(chosen)]
        bordered = torch.ones(len(chosen) + 1, len(chosen) + 1, dtype=torch.float64)
        bordered[1:, 1:], bordered[0, 0] = rows @ rows.T, 0.0
        right = torch.zeros(len(chosen) + 1, dtype=torch.float64)
        right[0] = 1.0
        w = torch.linalg.lstsq(bordered, right, driver="gelsd").solution[1:]
        if bool((w >= -1e-10).all()):
            best = min(best, float((rows.T @ w).square().sum()))
    return best


@pytest.mark.parametrize(("k", "n"), [(2, 3), (3, 2), (4, 3), (5, 8), (6, 2)])
def test_no_subset_of_the_rows_has_a_shorter_vector(k: int, n: int) -> None:
    for _ in range(6):
        jacobian = drawn(k, n)
        found = jacobian.T @ shortest(jacobian @ jacobian.T)
        assert abs(float(found.square().sum()) - by_enumeration(jacobian)) <= 1e-12 * float(jacobian.square().sum())


@pytest.mark.parametrize(("k", "n"), [(2, 5), (4, 3), (8, 8), (12, 40)])
def test_the_dual_cone_projection_is_that_of_nonnegative_least_squares(k: int, n: int) -> None:
    """|J'(u + x)| over x >= 0 is a least-squares problem of its own, which scipy solves from J instead of G."""
    for _ in range(6):
        jacobian = drawn(k, n)
        u = torch.rand(k, generator=GENERATOR, dtype=torch.float64)
        found = jacobian.T @ projected(jacobian @ jacobian.T, u[None])[0]
        x, _ = nnls(jacobian.T.numpy(), -(jacobian.T @ u).numpy())
        torch.testing.assert_close(found, jacobian.T @ (u + torch.from_numpy(x)), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("k", "n"), [(2, 4), (4, 9), (6, 20)])
def test_the_nearest_vector_with_given_products_is_that_of_a_general_solver(k: int, n: int) -> None:
    for _ in range(4):
        jacobian, u = drawn(k, n), torch.ones(k, dtype=torch.float64) / k
        wanted = 0.3 * jacobian.square().sum(1)
        v = reaching(jacobian @ jacobian.T, u, wanted)
        center = (jacobian.T @ u).numpy()
        other = minimize(
            lambda d, c: 0.5 * np.square(d - c).sum(),
            center,
            args=(center,),
            jac=lambda d, c: d - c,
            constraints={"type": "ineq", "fun": lambda d, j, t: j @ d - t, "args": (jacobian.numpy(), wanted.numpy())},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert v is not None
        torch.testing.assert_close(jacobian.T @ v, torch.from_numpy(other.x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("k", "n"), [(2, 4), (3, 3), (5, 20), (8, 8)])
@pytest.mark.parametrize("c", [0.2, 0.8, 1.5])
def test_the_conflict_averse_dual_is_not_lower_for_a_general_solver(k: int, n: int, c: float) -> None:
    jacobian = drawn(k, n)
    gramian, b = (jacobian @ jacobian.T).numpy(), np.ones(k) / k
    radius = c * np.sqrt(b @ gramian @ b)
    other = minimize(
        lambda w: w @ gramian @ b + radius * np.sqrt(w @ gramian @ w + 1e-18),
        b,
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    d = jacobian.T @ averse(torch.from_numpy(gramian), torch.from_numpy(b), c)
    g0 = jacobian.mean(0)
    assert float((d - g0).norm()) <= radius * (1 + 1e-9)
    assert float((jacobian @ d).min()) == pytest.approx(other.fun, rel=1e-6, abs=1e-7)  # strong duality


def test_at_a_stationary_point_the_conflict_averse_update_is_the_best_one_nearest_to_the_mean() -> None:
    """Two opposite rows allow nothing along themselves; what the third wants is orthogonal, and stays as it is."""
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.2, 0.5]], dtype=torch.float64)
    d = jacobian.T @ averse(jacobian @ jacobian.T, torch.ones(3, dtype=torch.float64) / 3, 0.9)
    torch.testing.assert_close(d, torch.tensor([0.0, 0.5 / 3], dtype=torch.float64), rtol=0, atol=1e-12)


def test_where_the_ball_does_not_reach_the_cone_the_conflict_averse_update_lies_on_its_edge() -> None:
    jacobian = torch.tensor([[1.0, 0.3], [-1.0, 0.4], [0.2, -0.5]], dtype=torch.float64)
    g0 = jacobian.mean(0)
    d = jacobian.T @ averse(jacobian @ jacobian.T, torch.ones(3, dtype=torch.float64) / 3, 0.9)
    assert float((d - g0).norm()) == pytest.approx(0.9 * float(g0.norm()), rel=1e-12)


@pytest.mark.parametrize("cosine", [-0.999, -0.5, 0.0, 0.7, 1.0])
@pytest.mark.parametrize("lengths", [(1.0, 1.0), (1e-8, 1e8), (3.0, 0.2)])
def test_two_bargain_by_a_closed_form(cosine: float, lengths: tuple[float, float]) -> None:
    n = torch.tensor(lengths, dtype=torch.float64)
    cosines = torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)
    found = bargained(cosines * n.outer(n), torch.ones(2, dtype=torch.float64), 1.0)
    assert found is not None
    torch.testing.assert_close(found, 1 / (n * (1 + cosine) ** 0.5), rtol=1e-9, atol=0)


@pytest.mark.parametrize("power", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_equal_gradients_share_by_a_scalar_equation(power: float) -> None:
    """With t equal rows of length n all weights are one number: t n^2 a = a^-power."""
    found = bargained(torch.full((4, 4), 9.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64), power)
    a = brentq(lambda a: 36 * a - a**-power, 1e-6, 10.0, xtol=1e-15)
    assert found is not None
    torch.testing.assert_close(found, torch.full((4,), a, dtype=torch.float64), rtol=1e-10, atol=0)


def test_opposite_wishes_cannot_be_reached_and_opposite_gains_cannot_be_bargained() -> None:
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    assert reaching(opposite, torch.zeros(2, dtype=torch.float64), ones) is None
    assert reaching(opposite, ones, 0 * ones) is not None
    assert all(bargained(opposite, ones, power) is None for power in (0.1, 1.0, 2.0))


@pytest.mark.parametrize("power", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_opposites_beside_a_third_have_no_bargain_in_any_order(power: float) -> None:
    rows = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5], [2.0, 1.0, 1.0]], dtype=torch.float64)
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1]):
        assert bargained(rows[order] @ rows[order].T, torch.ones(3, dtype=torch.float64), power) is None
