"""With a `GradScaler` an update is what it is without: methods see unscaled rows, the scaler finds scaled gradients."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from groupwise.balance import (
    Balancer,
    BalanceResult,
    CAGrad,
    FairGrad,
    FromJacobian,
    FromLosses,
    Static,
    Uncertainty,
)
from groupwise.errors import BalanceError, GroupwiseWarning
from tests.balance.engine.models import MultiTask, built
from tests.balance.engine.reference import assert_same, crooked, gradients, reference

WAYS = {
    "sequential": {"route": "sequential"},
    "gramian": {"route": "gramian"},
    "features": {"route": "features"},
    "layer": {"at": "trunk.2"},
}


def trained(model: MultiTask, balancer: Balancer, scaler: GradScaler | None, steps: int = 4) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        balancer.backward(model.losses(), scaler=scaler)
        if scaler is None:
            optimizer.step()
        else:
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    return model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", [FairGrad(alpha=2.0), CAGrad()], ids=lambda m: m.name)
def test_training_under_a_scaler_is_training_without(way: str, method: object) -> None:
    models = built("Plain"), built("Plain")
    scaler = GradScaler("cpu", init_scale=2.0**16, growth_interval=2)
    plain, scaled = (
        trained(model, Balancer(method, parameters=model, **WAYS[way]), given)
        for model, given in zip(models, (None, scaler), strict=True)
    )
    assert scaler.get_scale() > 2.0**16
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "method", [Uncertainty(), FromJacobian(lambda j: crooked(j @ j.T) @ j)], ids=["losses", "jacobian"]
)
def test_the_other_shapes_too(method: object) -> None:
    scaler = GradScaler("cpu", init_scale=1024.0)
    plain, scaled = (trained(built("Plain"), Balancer(method), given) for given in (None, scaler))
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_what_is_written_is_times_the_scale() -> None:
    expected, model = reference("Plain"), built("Plain")
    scaler = GradScaler("cpu", init_scale=64.0)
    balancer = Balancer(FairGrad())
    balancer.accumulate({"a": model.losses()["a"]}, scaler=scaler)
    losses = model.losses()
    result = balancer.backward({"b": losses["b"], "c": losses["c"]}, scaler=scaler)
    weights = torch.tensor([result.weights[task] for task in "abc"], dtype=torch.float64)
    assert_same(model, {name: 64 * gradient for name, gradient in expected.update(weights).items()}, tolerance=1e-10)
    assert result.norms["a"] == pytest.approx(float(expected.gramian()[0, 0].sqrt()), rel=1e-10)


def test_a_disabled_scaler_is_none() -> None:
    model = built("Plain")
    Balancer(CAGrad()).backward(model.losses(), scaler=GradScaler("cpu", enabled=False))
    other = built("Plain")
    Balancer(CAGrad()).backward(other.losses())
    assert_same(model, gradients(other), tolerance=0)


@pytest.mark.parametrize("method", [CAGrad(), FairGrad(), FromLosses(torch.ones_like)], ids=lambda m: m.name)
def test_an_overflow_reaches_the_scaler_and_teaches_the_method_nothing(method: object) -> None:
    model = built("Plain").float()
    balancer, scaler = Balancer(method), GradScaler("cpu", init_scale=2.0**127)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    losses = {task: loss * 1e6 for task, loss in model.losses().items()}
    result = balancer.backward(losses, scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**126
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    if not isinstance(method, FromLosses):
        assert "overflow" in result.route
        assert balancer.step == 0
        assert not result.skipped


class _Overflow(torch.autograd.Function):
    """A half-precision layer: its backward overflows where the scaled gradient is beyond 2^15."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return torch.where(gradient.abs() > 2.0**15, torch.inf, gradient)


def run(
    method: object, losses: Callable[[MultiTask, int], dict[str, torch.Tensor]], steps: int, **arguments: object
) -> tuple[MultiTask, Balancer, GradScaler, list[BalanceResult]]:
    """Some steps under a scaler."""
    model = built("Plain")
    scaler, results = GradScaler("cpu", init_scale=2.0**16), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = Balancer(method, parameters=model, **arguments)  # type: ignore[arg-type]
    for step in range(steps):
        optimizer.zero_grad()
        results.append(balancer.backward(losses(model, step), scaler=scaler))
        if gradients(model):
            scaler.step(optimizer)  # torch's asserts that there is something
            scaler.update()
    return model, balancer, scaler, results


def without_gradient(model: MultiTask, step: int) -> dict[str, torch.Tensor]:
    """Task b has a finite loss whose gradient is nan."""
    losses = model.losses()
    z = model.features
    return {**losses, "b": losses["b"] + (z - z.detach()).square().sum().sqrt()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", [CAGrad(), FairGrad()], ids=lambda m: m.name)
def test_a_broken_task_is_found_at_the_second_step(way: str, method: object) -> None:
    with pytest.warns(GroupwiseWarning, match="task 'b': its gradient is not finite"):
        _, balancer, scaler, results = run(method, without_gradient, 6, **WAYS[way])
    assert "overflow" in results[0].route
    assert all([*result.skipped] == ["b"] and result.tasks == ("a", "c") for result in results[1:])
    assert scaler.get_scale() == 2.0**15
    assert balancer.step == 5


def test_one_entry_that_is_not_finite_makes_a_task_broken() -> None:
    def one_entry(model: MultiTask, step: int) -> dict[str, torch.Tensor]:
        losses, w = model.losses(), model.trunk[0].weight[0, 0]
        return {**losses, "b": losses["b"] + (w - w.detach()).square().sqrt()}

    with pytest.warns(GroupwiseWarning, match="task 'b': its gradient is not finite"):
        _, _, _, results = run(CAGrad(), one_entry, 3)
    assert [result.tasks for result in results] == [(), ("a", "c"), ("a", "c")]


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_a_method_that_looks_at_no_gradient_finds_it_after_three_falls(heads: str) -> None:
    with pytest.warns(GroupwiseWarning, match="task 'b': its gradient is not finite"):
        _, _, scaler, results = run(Static(dict.fromkeys("abc", 1.0)), without_gradient, 9, task_only=heads)
    assert [bool(result.skipped) for result in results] == [False] * 4 + [True] * 5
    assert scaler.get_scale() == 2.0**12


def test_the_policy_decides_about_a_broken_task_under_a_scaler_too() -> None:
    with pytest.raises(BalanceError, match="task 'b': its gradient is not finite"):
        run(CAGrad(), without_gradient, 2, nonfinite="raise")
    with pytest.warns(GroupwiseWarning, match="skip_step"):
        model, balancer, _, results = run(CAGrad(), without_gradient, 3, nonfinite="skip_step")
    assert not results[2].tasks
    assert balancer.step == 0
    assert not gradients(model)


@pytest.mark.parametrize("method", [CAGrad(), Static(dict.fromkeys("abc", 1.0))], ids=lambda m: m.name)
def test_an_ordinary_overflow_is_no_fault_of_a_task_however_long_it_lasts(method: object) -> None:
    def loud(model: MultiTask, step: int) -> dict[str, torch.Tensor]:
        return {task: _Overflow.apply(loss / 64) * 64 for task, loss in model.losses().items()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, scaler, results = run(method, loud, 12)
    assert not any(result.skipped for result in results)
    assert scaler.get_scale() == 2.0**9  # seven steps in a row
    assert results[-1].tasks == ("a", "b", "c")


def test_a_task_that_recovers_takes_part_again() -> None:
    def at_times(model: MultiTask, step: int) -> dict[str, torch.Tensor]:
        return without_gradient(model, step) if step < 4 else model.losses()

    with pytest.warns(GroupwiseWarning, match="task 'b'"):
        _, balancer, _, results = run(CAGrad(), at_times, 6)
    assert [result.tasks for result in results] == [(), *[("a", "c")] * 3, *[("a", "b", "c")] * 2]
    assert not balancer._state.suspects


def test_a_broken_task_and_an_overflow_at_once_are_told_apart() -> None:
    """First both are suspects; then b is known to be broken, and c still overflows."""

    def both(model: MultiTask, step: int) -> dict[str, torch.Tensor]:
        losses = without_gradient(model, step)
        return {**losses, "c": _Overflow.apply(losses["c"] * 2.0**3) / 2.0**3}

    with pytest.warns(GroupwiseWarning, match="task 'b'"):
        _, _, _, results = run(CAGrad(), both, 8)
    assert results[-1].tasks == ("a", "c")
    assert all([*result.skipped] in ([], ["b"]) for result in results)


@pytest.mark.parametrize("method", [CAGrad(), Static(dict.fromkeys("abc", 1.0))], ids=lambda m: m.name)
def test_a_loss_that_is_not_finite_is_no_overflow(method: object) -> None:
    model = built("Plain")
    losses = model.losses()
    with pytest.warns(GroupwiseWarning, match="task 'b': its loss is nan"):
        result = Balancer(method).backward(
            {**losses, "b": losses["b"] * torch.nan}, scaler=GradScaler("cpu", init_scale=2.0**16)
        )
    assert result.tasks == ("a", "c")


def test_a_broken_task_beside_an_overflow_raises_under_raise() -> None:
    model = built("Plain")
    losses = model.losses()
    both = {**losses, "b": losses["b"] * torch.nan, "c": _Overflow.apply(losses["c"] * 2.0**9)}
    with pytest.raises(BalanceError, match=r"^task 'b': its loss is nan$"):
        Balancer(CAGrad(), nonfinite="raise").backward(both, scaler=GradScaler("cpu", init_scale=2.0**16))


def test_at_a_scale_of_one_there_is_nothing_to_wait_for() -> None:
    model = built("Plain")
    with pytest.warns(GroupwiseWarning, match="task 'b': its gradient is not finite"):
        result = Balancer(CAGrad()).backward(without_gradient(model, 0), scaler=GradScaler("cpu", init_scale=1.0))
    assert result.tasks == ("a", "c")


@pytest.mark.parametrize("method", [CAGrad(), Uncertainty()], ids=lambda m: m.name)
def test_a_broken_micro_batch_is_found_as_well(method: object) -> None:
    model = built("Plain")
    scaler, balancer = GradScaler("cpu", init_scale=2.0**16), Balancer(method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    results = []
    with pytest.warns(GroupwiseWarning, match="task 'b': its gradient is not finite"):
        for step in range(6):
            optimizer.zero_grad()
            balancer.accumulate(without_gradient(model, step), scaler=scaler)
            results.append(balancer.backward(model.losses(), scaler=scaler))
            scaler.step(optimizer)
            scaler.update()
    assert [*results[-1].skipped] == ["b"]
    assert scaler.get_scale() >= 2.0**12


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_backward_inside_autocast_is_the_one_outside(way: dict[str, str]) -> None:
    inside, outside = built("Plain").float(), built("Plain").float()
    for model in (inside, outside):
        balancer = Balancer(CAGrad(), parameters=model, **way)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model.losses()
            if model is inside:
                balancer.backward(losses)
        if model is outside:
            balancer.backward(losses)
    assert_same(inside, gradients(outside), tolerance=0)
