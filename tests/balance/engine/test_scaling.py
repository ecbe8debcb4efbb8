"""With a `GradScaler` an update is what it is without: methods see unscaled rows, the scaler finds scaled gradients."""

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from groupwise.balance import Balancer, CAGrad, FairGrad, FromJacobian, FromLosses, Uncertainty
from tests.balance.engine.models import MultiTask, built
from tests.balance.engine.reference import assert_same, crooked, gradients, reference

WAYS = {
    "sequential": {"cost": "sequential"},
    "gramian": {"cost": "gramian"},
    "features": {"cost": "features"},
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
