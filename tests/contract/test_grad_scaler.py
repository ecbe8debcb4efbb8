"""Section c: `torch.amp.GradScaler`, on the CPU, scales, skips and resumes a mixed optimizer as it does a plain one."""

import copy

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm
from groupwise.schedules import cosine
from tests.contract.mixes import (
    MIX,
    MIXES,
    Mix,
    Net,
    assert_same,
    assert_unmoved,
    batch,
    train,
    weights,
)

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
BOTH = Plan([Rule("*", optimizer="AdamW", lr=1e-2), Rule("*.hidden.*", optimizer="SGD", lr=0.1, momentum=0.9)])


def scaled_backward(scaler: torch.amp.GradScaler, net: nn.Module, seed: int) -> None:
    words, classes = batch(seed)
    net.zero_grad()
    scaler.scale(nn.functional.cross_entropy(net(words), classes)).backward()


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@mixes
def test_scaled_training_equals_training(mix: Mix) -> None:
    ours, theirs = mix.net(torch.float64), mix.net(torch.float64)
    optimizer = mix.optimizer(ours)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # a power of two: exact
    for seed in range(4):
        scaled_backward(scaler, ours, seed)
        scaler.step(optimizer)
        scaler.update()
    train(theirs, range(4), mix.optimizer(theirs).step)
    assert_same(ours, theirs)


@pytest.mark.parametrize("part", ["hidden.weight", "head.weight"], ids=["under SGD", "under AdamW"])
def test_one_infinite_gradient_skips_every_group(part: str) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaled_backward(scaler, net, 0)
    dict(net.named_parameters())[part].grad.fill_(float("inf"))
    before = weights(net)
    assert scaler.step(optimizer) is None
    scaler.update()
    assert_unmoved(net, before)
    assert len(optimizer.state) == 0
    assert scaler.get_scale() == 4.0


def test_gradients_are_unscaled_once_and_clipped_unscaled() -> None:
    net, theirs = MIX.net(), MIX.net()
    plan = Plan([*MIX.plan.rules, Rule("*", clip=clip_norm(0.01))])
    optimizer = GroupedOptimizer(net, plan)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    scaled_backward(scaler, net, 0)
    scaler.unscale_(optimizer)
    train(theirs, [0])
    torch.testing.assert_close(gradients(net), gradients(theirs))
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called on this optimizer"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    norm = nn.utils.get_total_norm(gradients(theirs).values())
    (measured,) = optimizer.measured.values()
    torch.testing.assert_close(measured.norm, norm)


def test_a_closure_is_refused_by_the_scaler_as_for_any_optimizer() -> None:
    net = MIX.net()
    scaler = torch.amp.GradScaler("cpu")
    scaled_backward(scaler, net, 0)
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(MIX.optimizer(net), closure=lambda: 0.0)


def test_unscaling_happens_outside_the_step() -> None:
    """Lightning refuses to clip an optimizer that says it takes scaled gradients."""
    assert getattr(MIX.optimizer(MIX.net()), "_step_supports_amp_scaling", False) is False


def test_each_view_has_its_own_slot_in_the_scaler() -> None:
    nets = nn.ModuleDict({"left": Net(), "right": Net()})
    optimizer = GroupedOptimizer(dict(nets.items()), BOTH)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    left, right = optimizer.only("left"), optimizer.only("right")
    assert optimizer.only("left") is left
    before = weights(nets)
    for name, view in (("left", left), ("right", right)):
        scaled_backward(scaler, nets[name], 0)
        scaler.unscale_(view)
    nets["right"].head.weight.grad.fill_(float("inf"))
    scaled = gradients(nets["left"])
    scaler.step(left)
    torch.testing.assert_close(gradients(nets["left"]), scaled)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called since the last update"):
        scaler.step(optimizer.only("left"))
    moved = {name.partition(".")[0] for name, p in nets.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"left"}


def test_a_view_with_an_infinite_gradient_is_skipped_alone() -> None:
    nets = nn.ModuleDict({"left": Net(), "right": Net()})
    optimizer = GroupedOptimizer(dict(nets.items()), BOTH)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = weights(nets)
    for name in nets:
        scaled_backward(scaler, nets[name], 0)
    nets["right"].head.weight.grad.fill_(float("inf"))
    for name in nets:
        scaler.step(optimizer.only(name))
    scaler.update()
    moved = {name.partition(".")[0] for name, p in nets.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"left"}
    assert scaler.get_scale() == 4.0


def test_the_plans_scheduler_does_not_advance_when_the_scaler_skipped() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scheduler = PlanScheduler(optimizer, total_steps=10, scaler=scaler)
    for seed in range(4):
        scaled_backward(scaler, net, seed)
        if seed == 1:
            net.head.weight.grad.fill_(float("nan"))
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.last_epoch == 3


def test_scaler_and_optimizer_resume_together() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
    for seed in range(3):
        scaled_backward(scaler, net, seed)
        scaler.step(optimizer)
        scaler.update()
    again = MIX.net()
    resumed = MIX.optimizer(again)
    other = torch.amp.GradScaler("cpu")
    again.load_state_dict(net.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == scaler.get_scale() == 128.0
    for one, opt, sc in ((net, optimizer, scaler), (again, resumed, other)):
        scaled_backward(sc, one, 3)
        sc.step(opt)
    assert_same(again, net)
