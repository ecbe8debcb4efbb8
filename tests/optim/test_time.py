"""Mistakes in time are said once, with their numbers; a run as it should be says nothing."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.schedules import Schedule, constant, cosine, exponential, linear, one_cycle, plateau

SCHEDULES = {
    "cosine": cosine(0.1),
    "cosine with a warmup": cosine(0.1, warmup="10%"),
    "one cycle": one_cycle(0.1),
    "linear to a floor": linear(0.1, 0.01),
    "constant after a warmup": constant(0.1, warmup="5 steps"),
    "cosine, then constant": cosine(0.1, over="5 steps").then(constant(0.01), at="10 steps"),
    "scaled": cosine(1.0, warmup="5 steps").scaled(0.1),
    "exponential": exponential(0.1, 0.9, every="10 steps"),
}


def built(lr: Schedule, algorithm: str = "AdamW") -> tuple[nn.Linear, GroupedOptimizer]:
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    decay = {} if algorithm == "SGD" else {"weight_decay": 0.0}
    return net, GroupedOptimizer(net, Plan([Rule("*", optimizer=algorithm, lr=lr, **decay)]))


def said(net: nn.Module, calls: list[Callable[[], Any]], updates: int) -> list[str]:
    """What is said in a run of so many updates, each a backward pass and then these calls."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(updates):
            net.zero_grad()
            net(torch.ones(2, 4)).square().mean().backward()
            for call in calls:
                call()
    return [str(each.message) for each in found]


@pytest.mark.parametrize("lr", SCHEDULES.values(), ids=list(SCHEDULES))
def test_a_run_of_the_length_that_was_given_says_nothing(lr: Schedule) -> None:
    net, optimizer = built(lr)
    scheduler = PlanScheduler(optimizer, total_steps=100)
    assert not said(net, [optimizer.step, scheduler.step], 100)


@pytest.mark.parametrize("lr", SCHEDULES.values(), ids=list(SCHEDULES))
def test_one_update_too_many_is_a_matter_of_rounding(lr: Schedule) -> None:
    net, optimizer = built(lr)
    scheduler = PlanScheduler(optimizer, total_steps=100)
    assert not said(net, [optimizer.step, scheduler.step], 101)


@pytest.mark.parametrize("total", [5, 40])
@pytest.mark.parametrize("lr", [cosine(0.1), linear(0.1, 0.0), cosine(1.0).scaled(0.1)])
def test_a_run_that_goes_on_at_lr_0_is_told_once_where_it_ended(lr: Schedule, total: int) -> None:
    net, optimizer = built(lr)
    scheduler = PlanScheduler(optimizer, total_steps=total)
    (sentence,) = said(net, [optimizer.step, scheduler.step], 3 * total)
    assert f"total_steps={total}, and from there on the lr of base is 0" in sentence


def test_a_run_half_as_long_again_at_a_rate_that_is_left_is_told_once() -> None:
    net, optimizer = built(linear(0.1, 0.01))
    scheduler = PlanScheduler(optimizer, total_steps=20)
    assert not said(net, [optimizer.step, scheduler.step], 30)
    (sentence,) = said(net, [optimizer.step, scheduler.step], 30)
    assert "total_steps=20, half as many updates again were made" in sentence


def test_constant_values_have_no_end() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    scheduler = PlanScheduler(optimizer, total_steps=5)
    assert not said(net, [optimizer.step, scheduler.step], 50)


@pytest.mark.parametrize("lengths", [{"warmup": "500 steps"}, {"warmup": "3 epochs"}])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: s.scaled(2.0), lambda s: s.clamped(0.0, 9.0)])
def test_a_warmup_longer_than_the_run_is_told_at_the_build(lengths: Any, wrap: Callable[[Schedule], Schedule]) -> None:
    schedule = wrap(cosine(0.1, **lengths))
    _, optimizer = built(schedule)
    last = schedule.at(99, 100, 50)
    with pytest.warns(GroupwiseWarning, match=rf"total_steps=100: the lr of 'base' ends at {last:.3g} and never"):
        PlanScheduler(optimizer, total_steps=100, steps_per_epoch=50)


def test_a_warmup_that_the_run_just_finishes_is_none_too_long() -> None:
    _, optimizer = built(cosine(0.1, warmup="100 steps"))
    PlanScheduler(optimizer, total_steps=100)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_scheduler_that_is_stepped_before_the_first_update_is_told_once() -> None:
    net, optimizer = built(cosine(0.1))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    (sentence,) = said(net, [scheduler.step, optimizer.step], 20)
    assert "stepped before the first update" in sentence


def test_a_first_update_at_lr_0_is_an_update() -> None:
    net, optimizer = built(linear(0.0, 0.1))
    scheduler = PlanScheduler(optimizer, total_steps=20)
    assert not said(net, [optimizer.step, scheduler.step], 20)


@pytest.mark.parametrize("updates", [0, 2, 30])
def test_a_scheduler_that_is_brought_forward_by_hand_is_no_mistake(updates: int) -> None:
    net, optimizer = built(cosine(0.1))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    for _ in range(updates):
        scheduler.step()
    assert not said(net, [optimizer.step, scheduler.step], 20)


def test_a_scheduler_that_is_told_which_update_it_stands_at_is_stepped() -> None:
    net, optimizer = built(cosine(0.1, warmup="50 steps"))
    scheduler = PlanScheduler(optimizer, total_steps=1000)
    assert not said(net, [optimizer.step, lambda: scheduler.step(epoch=scheduler.last_epoch + 10)], 90)


def test_a_scheduler_that_is_never_stepped_is_told_once() -> None:
    net, optimizer = built(cosine(0.1, warmup="50 steps"))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    (sentence,) = said(net, [optimizer.step], 200)
    assert "has not been stepped since it was built or loaded: 50 updates" in sentence
    assert scheduler.last_epoch == 0


def test_a_second_scheduler_that_is_never_stepped_is_told_as_the_first_would_be() -> None:
    net, optimizer = built(cosine(0.1))
    first = PlanScheduler(optimizer, total_steps=20)
    said(net, [optimizer.step, first.step], 20)
    second = PlanScheduler(optimizer, total_steps=100)
    (sentence,) = said(net, [optimizer.step], 60)
    assert "has not been stepped" in sentence
    assert second.last_epoch == 0


@pytest.mark.parametrize("before", [0, 1, 3, 10])
def test_a_scheduler_that_nothing_refers_to_is_told_once(before: int) -> None:
    net, optimizer = built(cosine(0.1))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    said(net, [optimizer.step], before)
    assert scheduler.last_epoch == 0
    del scheduler
    gc.collect()
    (sentence,) = said(net, [optimizer.step], 200)
    assert "its PlanScheduler is gone" in sentence


@pytest.mark.parametrize("metric", [0.5, 3.0, torch.tensor(0.5), float("nan"), "0.5", True, -1])
def test_a_metric_given_to_a_step_is_refused_and_changes_nothing(metric: Any) -> None:
    net, optimizer = built(cosine(0.1))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    said(net, [optimizer.step, scheduler.step], 50)
    before = optimizer.param_groups[0]["lr"]
    with pytest.raises(OptimizerError, match=r"takes no metric .*observe\(metric\)"):
        scheduler.step(metric)
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (50, before)


@pytest.mark.parametrize(("total", "due"), [(100, 50), (None, 1000)])
def test_a_plateau_that_never_hears_its_metric_is_told_once(total: int | None, due: int) -> None:
    net, optimizer = built(plateau(0.1, patience=3))
    scheduler = PlanScheduler(optimizer, total_steps=total)
    assert not said(net, [optimizer.step, scheduler.step], due)
    (sentence,) = said(net, [optimizer.step, scheduler.step], due // 2)
    assert "plateau(0.1, patience=3) has had no metric yet" in sentence


def test_a_plateau_that_heard_one_metric_says_nothing() -> None:
    net, optimizer = built(plateau(0.1, patience=3))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    scheduler.observe(1.0)
    assert not said(net, [optimizer.step, scheduler.step], 100)


def resumed(algorithm: str = "AdamW") -> tuple[nn.Linear, GroupedOptimizer, PlanScheduler, dict[str, Any]]:
    """A new process after 45 updates, its optimizer loaded, and the scheduler's state."""
    net, optimizer = built(cosine(0.1), algorithm)
    scheduler = PlanScheduler(optimizer, total_steps=100)
    said(net, [optimizer.step, scheduler.step], 45)
    own = built(cosine(0.1), algorithm)
    own[1].load_state_dict(optimizer.state_dict())
    return *own, PlanScheduler(own[1], total_steps=100), scheduler.state_dict()


def test_a_resume_without_the_schedulers_state_is_told_with_the_updates_that_were_made() -> None:
    net, optimizer, scheduler, _ = resumed()
    (sentence,) = said(net, [optimizer.step, scheduler.step], 50)
    assert "a state of 45 updates, and PlanScheduler stands at update 0" in sentence


@pytest.mark.parametrize("algorithm", ["AdamW", "SGD"])
def test_a_whole_resume_says_nothing(algorithm: str) -> None:
    net, optimizer, scheduler, state = resumed(algorithm)
    scheduler.load_state_dict(state)
    assert not said(net, [optimizer.step, scheduler.step], 50)


@pytest.mark.parametrize("algorithm", ["AdamW", "Adagrad"])
def test_a_checkpoint_from_before_the_first_update_says_nothing(algorithm: str) -> None:
    _, optimizer = built(cosine(0.1), algorithm)
    net, other = built(cosine(0.1), algorithm)
    other.load_state_dict(optimizer.state_dict())
    scheduler = PlanScheduler(other, total_steps=100)
    assert not said(net, [other.step, scheduler.step], 50)


def test_a_resume_brought_forward_by_hand_says_nothing() -> None:
    net, optimizer, scheduler, _ = resumed()
    for _ in range(45):
        scheduler.step()
    assert not said(net, [optimizer.step, scheduler.step], 50)


def test_another_length_at_a_resume_is_told_with_both() -> None:
    _, optimizer, _, state = resumed()
    longer = PlanScheduler(optimizer, total_steps=200)
    with pytest.warns(GroupwiseWarning, match=r"total_steps=100, this one has total_steps=200: after 45 .*45%.*22%"):
        longer.load_state_dict(state)


def test_another_length_is_nothing_to_schedules_that_know_their_own() -> None:
    _, optimizer = built(cosine(0.1, 0.01, over="50 steps"))
    state = PlanScheduler(optimizer, total_steps=100).state_dict()
    longer = PlanScheduler(optimizer, total_steps=200)
    longer.load_state_dict(state)
    assert longer.last_epoch == 0
