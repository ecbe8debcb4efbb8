"""Deep copies and pickles: the copy steps as the original does, and neither touches the other."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.schedules import cosine
from tests.contract.mixes import MIX, MIXES, Mix, Net, assert_same, assert_unmoved, train, weights

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}
copies = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


@copies
@mixes
@pytest.mark.parametrize("before", [0, 3])
def test_a_copy_steps_equal_to_the_original(copied: Callable[[Any], Any], mix: Mix, before: int) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, range(before), optimizer.step)
    twin, other = copied((net, optimizer))
    train(net, range(3, 6), optimizer.step)
    train(twin, range(3, 6), other.step)
    assert_same(net, twin)


@copies
def test_a_copy_is_apart_from_the_original(copied: Callable[[Any], Any]) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    twin, other = copied((net, optimizer))
    before = weights(net)
    train(twin, range(3), other.step)
    other.param_groups[0]["lr"] = 5.0
    assert_unmoved(net, before)
    assert 5.0 not in [group["lr"] for group in optimizer.param_groups]


@copies
def test_a_copy_keeps_every_public_attribute(copied: Callable[[Any], Any]) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    optimizer.note = "mine"  # type: ignore[attr-defined]
    other = copied(optimizer)
    assert {name for name in vars(optimizer) if name[0] != "_"} == {name for name in vars(other) if name[0] != "_"}
    assert other.note == "mine"
    assert other.plan == optimizer.plan
    assert str(other.resolution) == str(optimizer.resolution)


@copies
def test_a_copy_under_a_torch_scheduler_steps_itself(copied: Callable[[Any], Any]) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    StepLR(optimizer, 1)
    twin, other = copied((net, optimizer))
    before = weights(net)
    train(twin, [0], other.step)
    assert_unmoved(net, before)
    with pytest.raises(AssertionError, match="embed"):
        assert_same(net, twin)


@copies
def test_a_copy_of_everything_goes_on_with_its_schedule(copied: Callable[[Any], Any]) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1), momentum=0.9)]))
    scheduler = PlanScheduler(optimizer, total_steps=10)
    train(net, range(3), optimizer.step, scheduler.step)
    twin, other, follower = copied((net, optimizer, scheduler))
    train(net, range(3, 9), optimizer.step, scheduler.step)
    train(twin, range(3, 9), other.step, follower.step)
    assert follower.optimizer is other
    assert_same(net, twin)


@copies
def test_a_copied_scheduler_knows_whether_the_scaler_skipped(copied: Callable[[Any], Any]) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scaler = torch.amp.GradScaler("cpu")
    scheduler = PlanScheduler(optimizer, total_steps=10, scaler=scaler)
    train(net, [0], optimizer.step)
    follower: PlanScheduler = copied(scheduler)
    follower.step()
    assert follower.last_epoch == 1
    follower.step()  # nothing was stepped since
    assert follower.last_epoch == 1


@copies
def test_a_copy_can_be_regrouped_loaded_and_viewed(copied: Callable[[Any], Any]) -> None:
    nets = {"left": Net(), "right": Net()}
    optimizer = GroupedOptimizer(nets, Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=0.9)]))
    both = torch.nn.ModuleDict(nets)
    train(both["left"], range(2), optimizer.step)
    twins, other = copied((both, optimizer))
    before = weights(twins["right"])
    train(twins["left"], range(2), other.only("left").step)
    other.regroup(Plan([*other.plan.rules, Rule("*.hidden.*", momentum=0.5)]))
    other.load_state_dict(optimizer.state_dict())
    assert_unmoved(twins["right"], before)
    assert {group["momentum"] for group in other.param_groups} == {0.9, 0.5}
