"""The two-task toy: where published methods end, and that ours are these methods wherever their paths lead.

A path has up to 50,000 steps, so it is walked in plain floats with the updates of `tests.balance.toy`, which owe
nothing to the library; every fiftieth point of it is then a case for the library's method. Paths that rattle along a
crease of the toy end wherever rounding takes them: their tolerance is what a start moved by 1e-9 does to the end.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from groupwise.balance.memory import Memory
from groupwise.balance.method import MethodContext
from groupwise.balance.methods import METHODS
from tests.balance import toy
from tests.balance.toy import STARTS, Pair, Weigh

STEPS, LONGER = 35_000, 50_000
END = 0.06
RATTLING = 0.2
STUCK = None

PUBLISHED: dict[tuple[str, str], tuple[Weigh, int, float, float | None, float]] = {
    ("plain sum", "left"): (toy.plain_sum, LONGER, -0.38, -19.83, END),
    ("plain sum", "right"): (toy.plain_sum, LONGER, 0.73, STUCK, END),
    ("PCGrad", "left"): (toy.pcgrad, STEPS, -0.69, -19.33, RATTLING),
    ("PCGrad", "right"): (toy.pcgrad, STEPS, 0.19, STUCK, RATTLING),
    ("MGDA", "left"): (toy.mgda, STEPS, -1.19, -17.47, END),
    ("MGDA", "right"): (toy.mgda, STEPS, -2.00, -0.46, END),
    ("CAGrad", "left"): (toy.cagrad, STEPS, -0.39, -19.82, END),
    ("CAGrad", "right"): (toy.cagrad, STEPS, 0.19, STUCK, END),
    ("IMTL_G", "left"): (toy.imtl_g, STEPS, -1.16, -17.67, END),
    ("IMTL_G", "right"): (toy.imtl_g, STEPS, -1.79, -11.09, END),
    ("NashMTL", "left"): (toy.nash, STEPS, -1.01, -18.34, END),
    ("NashMTL", "right"): (toy.nash, STEPS, -1.83, -10.12, END),
    ("ConFIG", "left"): (toy.config, LONGER, -1.14, -17.74, RATTLING),
    ("ConFIG", "right"): (toy.config, LONGER, -1.86, -9.48, RATTLING),
}
"""By method and start: the update, the steps, L1 and L2 at the end, and the tolerance of L1."""

ARGUMENTS = {"CAGrad": {"c": 0.4}, "NashMTL": {"max_norm": 1.0}}
OURS = {"plain sum": "Equal"}
EVERY = 50
OPPOSITE = 1e-8  # 1 + cos of two gradients: below it, products in double precision hardly tell them from opposite
FLOOR = (-2.0, -20.0)

paths = pytest.mark.parametrize(("name", "start"), PUBLISHED, ids=[f"{name}, {start}" for name, start in PUBLISHED])


@pytest.mark.parametrize("point", [(-8.5, 7.5), (9.0, 9.0), (0.3, 0.2), (-3.0, -8.0), (7.0, -1e-3), (5.0, 3.9)])
def test_the_gradients_by_hand_are_those_of_autograd(point: Pair) -> None:
    p = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    for loss, row in zip(torch_losses(p), toy.rows(*point), strict=True):
        (gradient,) = torch.autograd.grad(loss, p, retain_graph=True)
        torch.testing.assert_close(gradient, torch.tensor(row, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert toy.losses(*point) == pytest.approx([loss.item() for loss in torch_losses(p)], rel=1e-12)


def torch_losses(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 and L2 as the papers' code has them."""
    x, y = p
    f1 = ((0.5 * (-x - 7) - torch.tanh(-y)).abs().clamp(min=5e-6)).log() + 6
    f2 = ((0.5 * (-x + 3) + torch.tanh(-y) + 2).abs().clamp(min=5e-6)).log() + 6
    q1, q2 = (((s - x) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20 for s in (7.0, -7.0))
    c1, c2 = torch.tanh(y / 2).clamp(min=0), torch.tanh(-y / 2).clamp(min=0)
    return 0.1 * (f1 * c1 + q1 * c2), f2 * c1 + q2 * c2


@functools.cache
def path(name: str, start: str) -> tuple[Pair, ...]:
    """Every fiftieth point of a path, and its end."""
    weigh, steps, *_ = PUBLISHED[name, start]
    points = list(toy.walk(weigh, STARTS[start], steps))
    return (*points[::EVERY], points[-1])


@paths
def test_a_path_ends_where_it_was_published_to_end(name: str, start: str) -> None:
    *_, first, second, tolerance = PUBLISHED[name, start]
    x, y = path(name, start)[-1]
    found = toy.losses(x, y)
    assert found[0] == pytest.approx(first, abs=tolerance)
    if second is STUCK:
        assert y > 0, "it left the valley above the front, where it was published to be stuck"
    elif tolerance == END:
        assert found[1] == pytest.approx(second, abs=4 * tolerance)


@paths
def test_wherever_a_path_leads_the_library_weighs_as_the_formula_does(name: str, start: str) -> None:
    weigh, method = PUBLISHED[name, start][0], METHODS[OURS.get(name, name)](**ARGUMENTS.get(name, {}))
    told = [rows for rows in (toy.rows(*point) for point in path(name, start)) if toy.angle(rows) > OPPOSITE]
    assert len(told) > 100
    for rows in told:
        expected = combined(rows, weigh(rows))
        size = max(*map(abs, expected), min(math.hypot(*row) for row in rows))
        assert direction(method, rows) == pytest.approx(expected, abs=1e-6 * size)


def combined(rows: toy.Rows, weights: Sequence[float]) -> Pair:
    """The update from two rows."""
    (a, b), (c, d) = rows
    return weights[0] * a + weights[1] * c, weights[0] * b + weights[1] * d


def direction(method: Callable[[torch.Tensor], torch.Tensor], rows: toy.Rows) -> Pair:
    """The library's update from two rows."""
    jacobian = torch.tensor(rows, dtype=torch.float64)
    matrix = torch.ones(2) if isinstance(method, METHODS["Equal"]) else jacobian @ jacobian.T
    return combined(rows, method(matrix).tolist())


@pytest.mark.parametrize(("start", "first", "second"), [("left", -1.44, -15.75), ("right", -1.56, -14.60)])
def test_famo_ends_where_it_was_published_to_end(start: str, first: float, second: float) -> None:
    *_, (_, after, _) = famo_path(start, LONGER)
    assert after[0] == pytest.approx(first, abs=END)
    assert after[1] == pytest.approx(second, abs=2 * END)


@pytest.mark.parametrize("start", STARTS)
def test_famo_weighs_as_the_formula_does_step_after_step(start: str) -> None:
    method = METHODS["FAMO"](gamma=0.0, floor={"1": FLOOR[0] - 1e-8, "2": FLOOR[1] - 1e-8})
    memory = Memory()
    for number, (before, after, weights) in enumerate(famo_path(start, 400)):
        told = torch.tensor(before, dtype=torch.float64)
        found = method.weights(told, MethodContext(("1", "2"), told, number), memory)
        assert found.tolist() == pytest.approx(weights, rel=1e-6), f"step {number}"
        method.after_step(MethodContext(("1", "2"), torch.tensor(after, dtype=torch.float64), number), memory)


def famo_path(start: str, steps: int) -> Iterator[tuple[Pair, Pair, Pair]]:
    """The losses before and after each step, and the weights."""
    famo, point = toy.Famo(FLOOR), toy.Adam([*STARTS[start]], 1e-3)
    for _ in range(steps):
        x, y = point.values
        before, weights = toy.losses(x, y), famo.weigh((x, y))
        point.step(combined(toy.rows(x, y), weights))
        after = (point.values[0], point.values[1])
        famo.learn((x, y), after)
        yield before, toy.losses(*after), weights


def test_mgda_ends_on_the_front() -> None:
    x, y = path("MGDA", "left")[-1]
    assert -7 <= x <= 7
    assert y == pytest.approx(-8.3552, abs=0.02)
