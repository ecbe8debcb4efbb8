"""A torch scheduler beside or instead of the plan's: what it multiplies, and what is said where both write."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler, ReduceLROnPlateau

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine, linear
from tests.optim.models import Net, batches, train

PLAN = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, warmup="50%")), Rule("head", lr=scale(0.5))])

FOREIGN: dict[str, Callable[[torch.optim.Optimizer], LRScheduler]] = {
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
    "ExponentialLR": lambda optimizer: ExponentialLR(optimizer, 0.9),
}
foreign = pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)


@foreign
@pytest.mark.parametrize("foreign_first", [True, False], ids=["foreign first", "ours first"])
def test_two_schedulers_on_one_learning_rate_are_said_once(
    make: Callable[[torch.optim.Optimizer], LRScheduler], foreign_first: bool
) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)
    other = make(optimizer) if foreign_first else None
    ours = PlanScheduler(optimizer, total_steps=10)
    other = other or make(optimizer)
    with pytest.warns(
        GroupwiseWarning, match=r"something besides PlanScheduler (keeps writing|wrote) the lr of base"
    ) as said:
        train(net, batches(6), optimizer.step, other.step, ours.step)
    assert len(said) == 1


@foreign
def test_the_order_of_their_ticks_does_not_matter(make: Callable[[torch.optim.Optimizer], LRScheduler]) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)
    ours, other = PlanScheduler(optimizer, total_steps=10), make(optimizer)
    with pytest.warns(GroupwiseWarning, match="a second scheduler"):
        train(net, batches(6), optimizer.step, ours.step, other.step)


def test_one_edit_by_hand_lasts_until_the_next_tick_and_nothing_is_said() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    train(net, batches(2), optimizer.step, scheduler.step)
    optimizer.param_groups[0]["lr"] = 0.7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(net, batches(4), optimizer.step, scheduler.step)


def test_a_foreign_scheduler_may_have_a_learning_rate_that_the_plan_does_not_schedule() -> None:
    net = Net()
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1, momentum=linear(0.5, 0.9))])
    optimizer = GroupedOptimizer(net, plan)
    ours, other = PlanScheduler(optimizer, total_steps=10), ExponentialLR(optimizer, 0.5)
    train(net, batches(3), optimizer.step, ours.step, other.step)
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(0.1 * 0.5**3)
    assert group["momentum"] == pytest.approx(0.62)


def test_resuming_and_regrouping_are_no_foreign_writes() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=20)
    for _ in range(3):
        train(net, batches(2), optimizer.step, scheduler.step)
        optimizer.regroup(PLAN)
        train(net, batches(1), optimizer.step, scheduler.step)
        optimizer.load_state_dict(optimizer.state_dict())
        scheduler.load_state_dict(scheduler.state_dict())
        train(net, batches(1), optimizer.step, scheduler.step)


def test_a_peak_that_the_warmup_starts_below_is_what_a_foreign_scheduler_multiplies() -> None:
    optimizer = GroupedOptimizer(Net(), PLAN)
    LambdaLR(optimizer, lambda step: 0.25)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"base": pytest.approx(0.025), "head": pytest.approx(0.0125)}


def test_a_plateau_of_torchs_is_undone_by_the_next_tick() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=linear(0.1, 0.0))]))
    ours, other = PlanScheduler(optimizer, total_steps=10), ReduceLROnPlateau(optimizer, patience=0)
    train(net, batches(1), optimizer.step, ours.step)
    other.step(1.0)
    other.step(2.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.009)
    train(net, batches(1), optimizer.step, ours.step)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.08)


SELDOM: dict[str, Callable[[torch.optim.Optimizer], LRScheduler]] = {
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3], 0.5),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.5),
}


@pytest.mark.parametrize("make", SELDOM.values(), ids=SELDOM.keys())
def test_a_chain_with_the_plan_behind_another_scheduler_is_told_once_that_the_plan_writes_over_it(
    make: Callable[[torch.optim.Optimizer], LRScheduler],
) -> None:
    model = nn.Linear(2, 1)
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    factor = make(optimizer)
    chain = lr_scheduler.ChainedScheduler([factor, PlanScheduler(optimizer, total_steps=12)], optimizer=optimizer)
    with pytest.warns(GroupwiseWarning, match="built before it") as said:
        for _ in range(12):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
            chain.step()
    assert [str(w.message) for w in said if "PlanScheduler wrote the lr of base" in str(w.message)]
    assert len(said) == 1


@pytest.mark.parametrize("before", [True, False], ids=["built after a scheduler of the sequence", "alone"])
def test_one_edit_by_hand_of_a_scheduled_rate_is_silent(before: bool) -> None:
    model = nn.Linear(2, 1)
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scheduler: Any
    if before:
        ramp = lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 2)
        scheduler = lr_scheduler.SequentialLR(optimizer, [ramp, PlanScheduler(optimizer, total_steps=12)], [3])
    else:
        scheduler = PlanScheduler(optimizer, total_steps=12)
    for step in range(10):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        scheduler.step()
        if step == 5:
            optimizer.param_groups[0]["lr"] = 0.5
