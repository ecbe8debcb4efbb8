"""Schedulers that are stepped once per epoch, or per round of several updates, as torch's are: what is said of it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import Schedule, constant, cosine, linear, multi_step, plateau

METRICS = [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]


def built(lr: Schedule | float, *more: Rule) -> tuple[nn.Module, GroupedOptimizer]:
    torch.manual_seed(0)
    net = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 1)})
    return net, GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=lr, momentum=0.9), *more]))


def said(net: Any, optimizer: GroupedOptimizer, each: int, ends: list[Any]) -> list[str]:
    """What is said in epochs of `each` updates, at whose ends these are called."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", GroupwiseWarning)
        for end in ends:
            for _ in range(each):
                optimizer.zero_grad()
                net["head"](net["body"](torch.ones(2, 4))).square().mean().backward()
                optimizer.step()
            end()
    return [str(each.message) for each in found]


@pytest.mark.parametrize("each", [2, 12, 60])
@pytest.mark.parametrize("lr", [cosine(0.1), linear(0.1, 0.01), cosine(0.1, warmup="2 steps")], ids=str)
def test_a_scheduler_that_is_stepped_per_epoch_is_told_once_with_both_readings(lr: Schedule, each: int) -> None:
    net, optimizer = built(lr, Rule("body", trainable=after("5 steps")))
    scheduler = PlanScheduler(optimizer, total_steps=8)
    between = [one for one in said(net, optimizer, each, [scheduler.step] * 8) if "between two steps" in one]
    assert len(between) == 1
    assert f"stepped {each} times between" in between[0]
    assert "not once per epoch" in between[0]
    assert "steps_per_epoch=1" in between[0]


@pytest.mark.parametrize("each", [2, 12, 40])
def test_steps_at_even_distances_are_no_scheduler_that_stopped(each: int) -> None:
    net, optimizer = built(cosine(0.1), Rule("body", trainable=after("5 steps")))
    scheduler = PlanScheduler(optimizer, total_steps=8)
    assert not any("the last" in one for one in said(net, optimizer, each, [scheduler.step] * 8))


def test_a_scheduler_that_stopped_is_told_though_it_was_stepped_at_a_distance() -> None:
    net, optimizer = built(cosine(0.1))
    scheduler = PlanScheduler(optimizer, total_steps=100)
    *_, sentence = said(net, optimizer, 12, [scheduler.step] * 3 + [lambda: None] * 3)
    assert "the last 24 updates were made without a step of PlanScheduler, which stands at update 3" in sentence


@pytest.mark.parametrize("lr", [cosine(0.1), multi_step(0.1, 0.1, at=["3 epochs"])], ids=str)
def test_an_epoch_that_is_one_step_says_nothing(lr: Schedule) -> None:
    net, optimizer = built(lr, Rule("body", trainable=after("2 epochs")))
    scheduler = PlanScheduler(optimizer, total_steps=8, steps_per_epoch=1)
    assert said(net, optimizer, 12, [scheduler.step] * 8) == []


@pytest.mark.parametrize("each", [1, 12, 60])
@pytest.mark.parametrize("lr", [plateau(0.1, factor=0.5, patience=1), plateau(0.1, factor=0.5, patience=1).scaled(2.0)])
def test_a_plateau_that_has_its_metric_needs_no_steps_and_is_torchs(lr: Schedule, each: int) -> None:
    net, optimizer = built(lr)
    scheduler = PlanScheduler(optimizer)
    assert said(net, optimizer, each, [lambda m=m: scheduler.observe(m) for m in METRICS]) == []
    plain = torch.optim.SGD(net.parameters(), lr=lr.at(0))
    twin = torch.optim.lr_scheduler.ReduceLROnPlateau(plain, factor=0.5, patience=1)
    for metric in METRICS:
        twin.step(metric)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"])


def test_a_plateau_whose_scheduler_gets_neither_steps_nor_metrics_is_told() -> None:
    net, optimizer = built(plateau(0.1))
    scheduler = PlanScheduler(optimizer, total_steps=200)
    (sentence,) = said(net, optimizer, 200, [lambda: None])
    assert "has had no metric yet" in sentence
    assert scheduler.last_epoch == 0


@pytest.mark.parametrize(
    ("lr", "more", "due"),
    [
        (constant(0.1), (), False),
        (0.1, (Rule("head", lr=constant(0.2)),), False),
        (plateau(0.1), (Rule("head", momentum=linear(0.5, 0.9)),), True),
        (constant(0.1), (Rule("body", trainable=after("20 steps")),), True),
    ],
)
def test_a_scheduler_without_steps_is_told_where_something_is_due(
    lr: Schedule | float, more: tuple[Rule, ...], due: bool
) -> None:
    net, optimizer = built(lr, *more)
    scheduler = PlanScheduler(optimizer, total_steps=200)
    told = said(net, optimizer, 60, [lambda: None])
    assert any("has not been stepped" in one for one in told) == due
    assert len(told) == due
    assert scheduler.last_epoch == 0
