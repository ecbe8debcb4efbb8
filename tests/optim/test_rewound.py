"""A run that is put back to where it was, after a range test of rates, say, goes on as if it had not been away."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseWarning
from groupwise.optim.plan_values import Prefer
from groupwise.schedules import Schedule, cosine, function, linear, one_cycle
from tests.optim.models import Net, batches, train, weights

LENGTH = 12
CYCLE = one_cycle(1e-2)


def built(lr: Schedule, **more: Any) -> tuple[Net, GroupedOptimizer, PlanScheduler]:
    net = Net()
    rules = [Rule("*", optimizer="AdamW", lr=lr, weight_decay=0.1, **more), Rule("embed.*", lr=scale(0.1))]
    optimizer = GroupedOptimizer(net, Plan(rules))
    return net, optimizer, PlanScheduler(optimizer, total_steps=LENGTH)


def range_test(net: Net, optimizer: GroupedOptimizer) -> None:
    """The rates rise by a factor at each update; nothing steps a scheduler."""
    for group in optimizer.param_groups:
        group["lr"] *= 1e-3

    def rise() -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 1.5

    train(net, batches(10, seed=9), optimizer.step, rise)


def failed_epoch(net: Net, optimizer: GroupedOptimizer) -> None:
    """Somebody lowers the rates and the momentum by hand, to no avail."""
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = 1e-6, (0.1, 0.2)
    train(net, batches(3, seed=9), optimizer.step)


@pytest.mark.parametrize("detour", [range_test, failed_epoch])
@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize(
    ("lr", "more"),
    [(cosine(1e-2), {}), (linear(1e-2, warmup="3 steps"), {}), (CYCLE, {"beta1": CYCLE.momentum()})],
    ids=["cosine", "warmup", "cycle"],
)
def test_a_run_goes_on_as_if_there_had_been_no_detour(
    lr: Schedule, more: dict[str, Any], start: int, detour: Callable[[Net, GroupedOptimizer], None]
) -> None:
    net, optimizer, scheduler = built(lr, **more)
    train(net, batches(LENGTH)[:start], optimizer.step, scheduler.step)
    before = [{key: copy.copy(value) for key, value in group.items()} for group in optimizer.param_groups]
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupwiseWarning)  # rates by hand in mid-run, while the plan has more to do
        detour(net, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupwiseWarning)
        net.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        for group, old in zip(optimizer.param_groups, before, strict=True):
            assert (group["lr"], group["weight_decay"]) == (old["lr"], old["weight_decay"])
        train(net, batches(LENGTH)[start:], optimizer.step, scheduler.step)
    straight, other, ticks = built(lr, **more)
    train(straight, batches(LENGTH), other.step, ticks.step)
    torch.testing.assert_close(weights(net), weights(straight), rtol=0, atol=0)


def test_a_range_test_before_the_run_and_what_follows_it_say_nothing() -> None:
    net, optimizer, scheduler = built(cosine(1e-2))
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupwiseWarning)
        range_test(net, optimizer)
        net.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        train(net, batches(LENGTH), optimizer.step, scheduler.step)


@pytest.mark.parametrize(("prefer", "rate"), [("unchanged", 1e-2), ("plan", 5e-3)])
def test_a_load_undoes_what_was_written_by_hand_over_a_schedule(prefer: Prefer, rate: float) -> None:
    """With what stood in the checkpoint, which another scheduler may have written; or with the plan's value now."""
    _, saved, _ = built(cosine(1e-2))
    _, optimizer, scheduler = built(cosine(1e-2))
    for _ in range(LENGTH // 2):
        optimizer.step()
        scheduler.step()
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.resume(saved.state_dict(), prefer=prefer)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(rate), pytest.approx(5e-4)]


def test_values_that_are_forced_stand_until_the_schedulers_next_step() -> None:
    _, optimizer, scheduler = built(cosine(1e-2))
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 7.0
    optimizer.resume(saved, prefer="checkpoint")
    assert optimizer.param_groups[0]["lr"] == 7.0
    with pytest.warns(GroupwiseWarning, match="the lr of 'base' stood at 7"):
        optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(cosine(1e-2).at(1, LENGTH))


def test_a_schedule_that_fails_in_a_load_leaves_all_as_it_was() -> None:
    fails: list[bool] = []

    def rate(step: int) -> float:
        if fails:
            raise ConnectionError("a table on a share")
        return 0.1

    _, optimizer, _scheduler = built(function(rate))
    saved = optimizer.state_dict()
    optimizer.param_groups[0]["weight_decay"] = 0.7
    fails.append(True)
    with pytest.raises(ConnectionError, match="a table"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["weight_decay"] == 0.7


def test_a_scheduler_that_waits_for_its_turn_writes_nothing() -> None:
    net, optimizer, scheduler = built(cosine(1e-2))
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=3)
    torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, scheduler], [3])
    rates = [group["lr"] for group in optimizer.param_groups]
    train(net, batches(1), optimizer.step)
    optimizer.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in optimizer.param_groups] == rates


def test_what_the_scheduler_after_the_plan_writes_stands_through_a_load() -> None:
    """As when weights are put back in mid-run: the plan's value at its last update is over."""
    net, optimizer, scheduler = built(cosine(1e-2))
    after = torch.optim.lr_scheduler.ConstantLR(optimizer, 0.05, 99)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [scheduler, after], [4])
    train(net, batches(6), optimizer.step, both.step)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == pytest.approx(5e-4)  # 0.05 of the peak; the plan's own at its last update is above 6e-3
    saved = copy.deepcopy(optimizer.state_dict())
    range_test(net, optimizer)
    optimizer.load_state_dict(saved)
    assert [group["lr"] for group in optimizer.param_groups] == rates
