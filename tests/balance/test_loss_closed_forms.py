"""Losses to weights, where a formula says it all: each weight is the derivative of what the method minimises."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchjd import scalarization

from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, MethodContext
from groupwise.balance.methods import RLW, STCH, Equal, GeometricMean, LogSum, Static
from groupwise.errors import BalanceError
from groupwise.schedules import constant, cosine, linear, plateau
from tests.balance.driving import NAMES, context, weights

sizes = st.floats(-6, 6).map(lambda x: 10**x)
samples = st.lists(sizes, min_size=1, max_size=8).map(lambda values: torch.tensor(values, dtype=torch.float64))

PREFERENCE = dict(zip(NAMES, [0.1, 0.3, 0.05, 0.2, 0.1, 0.05, 0.15, 0.05], strict=True))
IDEAL = dict(zip(NAMES, [-1.0, 0.0, 0.5, 2.0, 0.0, 0.0, 0.1, -3.0], strict=True))


def stch(losses: Tensor) -> Tensor:
    p, z = (torch.tensor(list(x.values()), dtype=torch.float64)[: len(losses)] for x in (PREFERENCE, IDEAL))
    return 0.5 * torch.logsumexp(p * (losses - z) / 0.5, 0)


OBJECTIVES: dict[str, tuple[LossMethod, Callable[[Tensor], Tensor]]] = {
    "sum": (Equal(), torch.sum),
    "mean": (Equal(reduction="mean"), torch.mean),
    "static": (Static(PREFERENCE), lambda x: sum(p * loss for p, loss in zip(PREFERENCE.values(), x, strict=False))),
    "sum of logarithms": (LogSum(), lambda x: x.log().sum()),
    "geometric mean": (GeometricMean(), lambda x: x.log().mean().exp()),
    "smooth Tchebycheff": (STCH(mu=0.5, preference=PREFERENCE, ideal=IDEAL), stch),
    "smooth Tchebycheff, uniform": (STCH(), lambda x: torch.logsumexp(x / len(x), 0)),
}
TWINS: dict[str, tuple[LossMethod, Callable[[Tensor], scalarization.Scalarizer]]] = {
    "Sum": (Equal(), lambda _: scalarization.Sum()),
    "Mean": (Equal(reduction="mean"), lambda _: scalarization.Mean()),
    "GeometricMean": (GeometricMean(), lambda _: scalarization.GeometricMean()),
    "STCH": (STCH(mu=0.1), lambda _: scalarization.STCH(mu=0.1)),
    "Constant": (
        Static(PREFERENCE),
        lambda x: scalarization.Constant(torch.tensor(list(PREFERENCE.values())[: len(x)], dtype=torch.float64)),
    ),
}


def derivative(objective: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:
    leaf = losses.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf), leaf)[0]


@pytest.mark.parametrize("name", OBJECTIVES)
@given(losses=samples)
def test_the_weights_are_the_derivative_of_the_objective(name: str, losses: Tensor) -> None:
    method, objective = OBJECTIVES[name]
    torch.testing.assert_close(
        weights(method, losses, Memory()), derivative(objective, losses), rtol=1e-10, atol=1e-300
    )


@pytest.mark.parametrize("name", TWINS)
@given(losses=samples)
def test_they_are_those_of_torchjd(name: str, losses: Tensor) -> None:
    method, twin = TWINS[name]
    torch.testing.assert_close(
        weights(method, losses, Memory()), derivative(twin(losses), losses), rtol=1e-9, atol=1e-300
    )


@given(losses=samples)
def test_the_logarithm_does_not_see_the_scale_of_any_one_task(losses: Tensor) -> None:
    scales = 2.0 ** torch.arange(-24, -24 + 6 * len(losses), 6, dtype=torch.float64)
    assert torch.equal(weights(LogSum(), scales * losses, Memory()) * scales, weights(LogSum(), losses, Memory()))


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_the_geometric_mean_neither_overflows_nor_underflows(scale: float) -> None:
    losses = torch.tensor([3.0, 1.0, 0.2, 5.0, 2.0], dtype=torch.float64)
    expected = [math.prod(losses.tolist()) ** 0.2 / (5 * loss) for loss in losses.tolist()]
    torch.testing.assert_close(weights(GeometricMean(), scale * losses, Memory()).tolist(), expected)


def test_smooth_tchebycheff_tends_to_the_largest_loss() -> None:
    found = weights(STCH(mu=1e-300), torch.tensor([1.0, 1e30, 2.0]), Memory())
    assert found.tolist() == [0.0, pytest.approx(1 / 3), 0.0]


@pytest.mark.parametrize("method", [LogSum(), GeometricMean()])
@pytest.mark.parametrize("loss", [0.0, -1.5])
def test_a_logarithm_that_does_not_exist_names_the_task_and_the_way_out(method: LossMethod, loss: float) -> None:
    message = rf"{method.name} takes the logarithm of a loss, and task 'depth' has the loss {loss:g}: add a constant"
    with pytest.raises(BalanceError, match=message):
        weights(method, torch.tensor([1.0, loss, 2.0]), Memory())


def test_a_scheduled_weight_is_evaluated_at_the_update() -> None:
    method = Static({"seg": 2, "depth": linear(0.0, end=1.0), "normal": cosine(1.0, warmup="1 epoch")})
    ones = torch.ones(3, dtype=torch.float64)
    for step in (0, 3, 10, 25):
        now = MethodContext(NAMES[:3], ones, step, (), total_steps=20, steps_per_epoch=5)
        expected = [2.0, linear(0.0, end=1.0).at(step, 20), cosine(1.0, warmup="1 epoch").at(step, 20, 5)]
        assert method.weights(ones, now, Memory()).tolist() == expected


def test_a_schedule_whose_length_nobody_gave_names_the_task() -> None:
    with pytest.raises(
        BalanceError, match=r"static weight of task 'depth': linear.* needs total_steps: pass it to Bal"
    ):
        weights(Static({"seg": 1.0, "depth": linear(1.0)}), torch.ones(2), Memory())


def test_every_task_needs_a_weight_and_a_weight_may_wait_for_its_task() -> None:
    method = Static({"seg": 1.0, "depth": 2.0})
    assert weights(method, torch.ones(1), Memory(), ["depth"]).tolist() == [2.0]
    with pytest.raises(BalanceError, match=r"unknown task 'dept'; did you mean 'depth'\? .*give every task an entry"):
        weights(method, torch.ones(2), Memory(), ["seg", "dept"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": "x"}, "Static: weights: task 'a': 'x' is not a number"),
        ({"a": float("nan")}, "Static: weights: task 'a': nan is not a finite number"),
        ({"a": True}, "task 'a': True is not a number"),
        ({1: 1.0}, "Static: weights: the name of a task is text, not 1"),
        ([1.0], r"Static: weights: a table by task is written \{\"depth\": 1.0\}, not \[1.0\]"),
        ({"a": plateau(1.0)}, "task 'a': plateau.* follows a metric, which a balancer does not have"),
    ],
)
def test_a_table_of_weights_is_checked(table: object, message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        Static(table)  # type: ignore[arg-type]


def test_a_static_method_is_a_value() -> None:
    table = {"seg": 1.0, "depth": constant(2.0)}
    method = Static(table)
    table["seg"] = 3.0
    assert method == Static({"depth": constant(2.0), "seg": 1})
    assert hash(method) == hash(Static({"depth": constant(2.0), "seg": 1}))
    assert repr(method) == "Static(weights={'seg': 1.0, 'depth': constant(2.0)})"


@pytest.mark.parametrize("variant", ["normal", "dirichlet"])
def test_random_weights_are_a_mean_that_is_fair_to_every_task(variant: str) -> None:
    memory, method = Memory(seed=3), RLW(variant=variant)  # type: ignore[arg-type]
    drawn = torch.stack([weights(method, torch.ones(4), memory) for _ in range(2000)])
    assert drawn.min() > 0
    torch.testing.assert_close(drawn.sum(1), torch.ones(2000, dtype=torch.float64))
    spread = drawn.std(0) / 2000**0.5
    assert ((drawn.mean(0) - 0.25).abs() < 5 * spread).all()


def test_normal_weights_are_the_softmax_of_normal_draws_and_dirichlet_ones_are_uniform_on_the_simplex() -> None:
    expected = torch.softmax(torch.randn(3, generator=torch.Generator().manual_seed(7), dtype=torch.float64), 0)
    assert torch.equal(weights(RLW(), torch.ones(3), Memory(seed=7)), expected)
    memory = Memory(seed=1)
    drawn = torch.stack([weights(RLW(variant="dirichlet"), torch.ones(2), memory) for _ in range(2000)])[:, 0]
    thirds = torch.histc(drawn, 3, 0, 1)  # of two, the first is uniform on [0, 1]
    assert ((thirds - 2000 / 3).abs() < 5 * (2000 * 2 / 9) ** 0.5).all()


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    weights(RLW(), torch.ones(3), Memory())
    assert torch.equal(before, torch.get_rng_state())


def test_a_preference_or_an_ideal_covers_every_task() -> None:
    with pytest.raises(BalanceError, match="the preference of STCH: unknown task 'depth'"):
        weights(STCH(preference={"seg": 1.0}), torch.ones(2), Memory())
    with pytest.raises(BalanceError, match="the ideal of STCH: unknown task 'seg'"):
        weights(STCH(ideal={"depth": 1.0}), torch.ones(2), Memory())
    with pytest.raises(BalanceError, match=r"STCH: ideal: task 'seg': a number, not a schedule \(constant\(1\)\)"):
        STCH(ideal={"seg": constant(1.0)})  # type: ignore[dict-item]
    with pytest.raises(BalanceError, match="STCH: mu: 0 is not above 0"):
        STCH(mu=0)


def test_a_method_outside_a_balancer_is_a_plain_function() -> None:
    assert GeometricMean()(torch.tensor([4.0, 1.0])).tolist() == [0.25, 1.0]
    assert context(torch.ones(2)).tasks == ("seg", "depth")
