"""What the length of a run says about a plan before it is trained: at the build of a scheduler, and in `show`."""

from __future__ import annotations

import warnings

import pytest
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, layer_decay, scale, unfreeze_down, until
from groupwise.errors import GroupwiseWarning
from groupwise.optim import resolve
from groupwise.plan.time_checks import time_checks
from groupwise.schedules import Schedule, constant, cosine, linear, multi_step, one_cycle, piecewise, step_decay


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))


def said(lr: Schedule | float, total: int, *more: Rule, per_epoch: int = 10) -> tuple[str, ...]:
    plan = Plan([Rule("*", optimizer="SGD", lr=lr), *more])
    sentences = time_checks(resolve(net(), plan), total, per_epoch)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", GroupwiseWarning)
        PlanScheduler(GroupedOptimizer(net(), plan), total, per_epoch)
    assert [str(each.message) for each in found] == list(sentences)
    return sentences


MEANT = {
    "cosine": cosine(0.1),
    "with a warmup": cosine(0.1, warmup="10%"),
    "a warmup as long as the run": constant(0.1, warmup="100 steps"),
    "one cycle": one_cycle(0.1),
    "linear upwards": linear(0.0, 0.1),
    "two parts": cosine(0.1, over="50%").then(constant(0.01), at="50%"),
    "a zero before the end": piecewise([("0 steps", 0.1), ("50 steps", 0.0), ("60 steps", 0.1)]),
    "a zero at first": constant(0.0).then(cosine(0.1, warmup="5 steps"), at="10 steps"),
    "a constant": 0.1,
    "zero throughout": constant(0.0),
    "decay by epochs": step_decay(0.1, 0.5, every="2 epochs"),
    "milestones": multi_step(0.1, 0.1, at=["30 steps", "60 steps"]),
}


@pytest.mark.parametrize("lr", MEANT.values(), ids=list(MEANT))
@pytest.mark.parametrize("trainable", [True, after("30 steps"), until("30 steps"), unfreeze_down("2 epochs")], ids=str)
def test_what_fits_its_run_says_nothing(lr: Schedule | float, trainable: object) -> None:
    assert said(lr, 100, Rule(["0.*", "1.*"], trainable=trainable)) == ()  # type: ignore[arg-type]


def test_without_a_length_nothing_is_known() -> None:
    assert (
        time_checks(resolve(net(), Plan([Rule("*", optimizer="SGD", lr=constant(1.0, warmup="9 steps"))])), None) == ()
    )


@pytest.mark.parametrize("warmup", ["500 steps", "50 epochs"])
def test_a_warmup_longer_than_the_run_is_told_with_where_it_ends(warmup: str) -> None:
    (sentence,) = said(cosine(0.1, warmup=warmup), 100, Rule("2", lr=scale(0.5)))
    assert "the lr of base, 2 takes 500 updates, and the run has total_steps=100" in sentence
    assert "ends at 0.02 and never reaches 0.1" in sentence


@pytest.mark.parametrize(
    "lr",
    [
        linear(0.0, 0.1, over="500 steps").then(cosine(0.1), at="500 steps"),
        constant(0.1).then(constant(0.01), at="100 steps"),
        constant(0.1).then(constant(0.01).then(constant(0.001), at="90 steps"), at="10 steps"),
        constant(0.1).then(constant(0.01), at="50 epochs").scaled(0.5),
    ],
    ids=str,
)
def test_a_second_part_that_never_begins_is_told(lr: Schedule) -> None:
    (sentence,) = said(lr, 100)
    assert "the second part of the lr of 'base'" in sentence
    assert "total_steps=100: it never begins" in sentence


def test_the_second_part_of_any_hyperparameter_and_of_a_named_value_is_looked_at() -> None:
    late = constant(0.1).then(constant(0.2), at="150 steps")
    (sentence,) = said(0.1, 100, Rule("*", momentum=late))
    assert "the momentum of 'base', begins at update 150" in sentence
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1)], values={"teacher": late})
    assert "the value 'teacher'" in time_checks(resolve(net(), plan), 100)[0]


@pytest.mark.parametrize("trainable", [after("100 steps"), after("10 epochs"), after("100%")], ids=str)
def test_a_part_that_is_unfrozen_when_the_run_is_over_is_told(trainable: object) -> None:
    (sentence,) = said(0.1, 100, Rule("0", trainable=trainable))  # type: ignore[arg-type]
    assert "0 never trains" in sentence
    assert "total_steps=100" in sentence


def test_the_levels_that_a_gradual_unfreezing_does_not_reach_are_told() -> None:
    (sentence,) = said(0.1, 100, Rule("*", trainable=unfreeze_down("60 steps")))
    assert "after 2 × 60 steps" in sentence


@pytest.mark.parametrize(
    ("lr", "begins"),
    [
        (cosine(0.1, over="50 steps"), 50),
        (linear(0.1, 0.0, over="8 epochs"), 80),
        (constant(0.1).then(constant(0.0), at="37 steps"), 37),
        (cosine(1.0, over="50 steps").scaled(0.1), 50),
    ],
    ids=str,
)
def test_a_rate_of_zero_for_the_rest_of_the_run_is_told_with_where_it_begins(lr: Schedule, begins: int) -> None:
    (sentence,) = said(lr, 100, Rule("*", lr=layer_decay(0.5)))
    assert f"is 0 from update {begins} on, and the run has total_steps=100" in sentence
