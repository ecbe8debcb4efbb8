"""A plateau that is edited in mid-run keeps what it has reached, and obeys the edit."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseWarning, StateError
from groupwise.schedules import Schedule, cosine, plateau

FIRST = {"start": 1.0, "factor": 0.1, "patience": 1}


def plan(lr: Schedule, *more: Rule) -> Plan:
    return Plan([Rule("*", optimizer="SGD", lr=lr), *more])


def built(lr: Schedule, *more: Rule) -> tuple[GroupedOptimizer, PlanScheduler]:
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    optimizer = GroupedOptimizer(net, plan(lr, *more))
    return optimizer, PlanScheduler(optimizer)


def observe(optimizer: GroupedOptimizer, scheduler: PlanScheduler, *metrics: float) -> list[float]:
    for metric in metrics:
        optimizer.step()
        scheduler.step()
        scheduler.observe(metric)
    return [group["lr"] for group in optimizer.param_groups]


def reduced(*more: Rule) -> tuple[GroupedOptimizer, PlanScheduler]:
    """A run whose rate has fallen from 1 to 0.01, and in which one more metric was no better."""
    optimizer, scheduler = built(plateau(**FIRST), *more)
    assert observe(optimizer, scheduler, *[1.0] * 6)[0] == pytest.approx(0.01)
    return optimizer, scheduler


WAYS_IN = pytest.mark.parametrize("way_in", ["load_state_dict", "regroup"])


def under(
    way_in: str, lr: Schedule, *more: Rule, first: tuple[Rule, ...] = ()
) -> tuple[GroupedOptimizer, PlanScheduler]:
    optimizer, scheduler = reduced(*first)
    if way_in == "regroup":
        optimizer.regroup(plan(lr, *more))
        return optimizer, scheduler
    again, own = built(lr, *more)
    again.load_state_dict(optimizer.state_dict())
    own.load_state_dict(scheduler.state_dict())
    return again, own


EDITS: dict[str, tuple[dict[str, Any], float, float]] = {
    "nothing": ({}, 0.01, 0.001),
    "the start": ({"start": 0.5}, 0.005, 0.0005),
    "the factor": ({"factor": 0.5}, 0.01, 0.005),
    "a longer patience": ({"patience": 5}, 0.01, 0.01),
    "a floor": ({"floor": 0.02}, 0.02, 0.02),
    "a warmup": ({"warmup": "2 steps"}, 0.01, 0.001),
    "all of it": ({"start": 2.0, "factor": 0.5, "cooldown": 3}, 0.02, 0.01),
}


@WAYS_IN
@pytest.mark.parametrize(("edit", "now", "then"), EDITS.values(), ids=list(EDITS))
def test_an_edited_plateau_keeps_its_reductions_its_count_and_its_best_metric(
    edit: dict[str, Any], now: float, then: float, way_in: str
) -> None:
    optimizer, scheduler = under(way_in, plateau(**FIRST | edit))
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(now)]
    assert observe(optimizer, scheduler, 1.0) == [pytest.approx(then)]


@WAYS_IN
def test_a_plateau_is_found_by_its_rule_among_several(way_in: str) -> None:
    head = Rule("head", lr=plateau(4.0, factor=0.5, patience=1))
    edited = Rule("head", lr=plateau(8.0, factor=0.5, patience=7))
    optimizer, _ = under(way_in, plateau(2.0, factor=0.1, patience=3), edited, first=(head,))
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.02), pytest.approx(2.0)]


@WAYS_IN
def test_a_part_that_gets_a_plateau_of_its_own_goes_on_from_the_one_that_it_had(way_in: str) -> None:
    optimizer, _ = under(way_in, plateau(**FIRST), Rule("head", lr=plateau(2.0, factor=0.5)))
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(0.01), pytest.approx(0.02)]


@WAYS_IN
def test_rules_around_a_plateau_may_come_and_go(way_in: str) -> None:
    first = (Rule("head", lr=scale(0.5)),)
    optimizer, _ = under(way_in, plateau(**FIRST), Rule("body", momentum=0.9), Rule("head", lr=scale(0.1)), first=first)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [pytest.approx(0.001), pytest.approx(0.01)]


@WAYS_IN
def test_another_direction_forgets_the_best_metric(way_in: str) -> None:
    optimizer, scheduler = under(way_in, plateau(**FIRST, mode="max"))
    assert observe(optimizer, scheduler, 0.5, 0.5) == [pytest.approx(0.01)]
    assert observe(optimizer, scheduler, 0.5) == [pytest.approx(0.001)]


def test_the_memory_of_a_plateau_that_is_gone_is_left_and_told() -> None:
    _, scheduler = reduced()
    optimizer = GroupedOptimizer(nn.Linear(2, 2), plan(cosine(1.0)))
    own = PlanScheduler(optimizer, total_steps=20)
    with pytest.warns(GroupwiseWarning, match=r"no plateau any more where plateau\(1\.0.*what it had reached, 0\.01"):
        own.load_state_dict(scheduler.state_dict() | {"total_steps": 20})
    assert own.last_epoch == 6


def test_a_checkpoint_that_files_memories_by_text_alone_still_loads() -> None:
    optimizer, scheduler = reduced()
    state = scheduler.state_dict()
    keys = ("value", "best", "bad", "cooldown")
    state["plateaus"] = {text: {k: own[k] for k in keys} for text, own in state["plateaus"].items()}
    again, own = built(plateau(**FIRST))
    own.load_state_dict(state)
    assert [group["lr"] for group in again.param_groups] == [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (3, "is a mapping, not int"),
        ({"value": 0.1}, "a plateau's state has"),
        ({"value": 0.1, "best": None, "bad": 0, "cooldown": 0, "rules": 7}, "a list of texts, not 7"),
        ({"value": 0.1, "best": None, "bad": 0, "cooldown": 0, "plateau": {"plateu": 1.0}}, "plateau's state: "),
    ],
)
def test_a_damaged_memory_is_refused_and_changes_nothing(broken: object, told: str) -> None:
    optimizer, scheduler = reduced()
    before = scheduler.state_dict()
    with pytest.raises(StateError, match=told):
        scheduler.load_state_dict(before | {"plateaus": {"plateau(1.0)": broken}})
    assert scheduler.state_dict() == before
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_edits_of_plateaus_are_made_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        under("load_state_dict", plateau(0.5, factor=0.3))
