"""An edited plan under each scheduler of torch's, through each way in: the course that is under way goes on.

The reference is torch's own scheduler over plain groups that had the new rates from the start.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.checkpoint import load, save
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine

DONE, AFTER = 6, 6

MULTIPLYING: dict[str, Callable[[Optimizer], Any]] = {
    "StepLR": lambda o: StepLR(o, 4, gamma=0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [2, 8], gamma=0.1),
    "ConstantLR": lambda o: ConstantLR(o, 0.25, total_iters=9),
    "LinearLR": lambda o: LinearLR(o, 0.1, 0.7, total_iters=9),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.6),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 20),
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 4),
    "PolynomialLR": lambda o: PolynomialLR(o, 15, power=2.0),
    "LambdaLR": lambda o: LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: MultiplicativeLR(o, lambda step: 0.8),
    "SequentialLR": lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 3), CosineAnnealingLR(o, 15)], [3]),
    "SequentialLR, the second to come": lambda o: SequentialLR(
        o, [LinearLR(o, 0.1, 1.0, 9), ExponentialLR(o, 0.5)], [9]
    ),
    "ChainedScheduler": lambda o: ChainedScheduler([ConstantLR(o, 0.5, 9), ExponentialLR(o, 0.7)], optimizer=o),
    "ReduceLROnPlateau": lambda o: ReduceLROnPlateau(o, patience=1, factor=0.5),
}
WITH_RATES_OF_THEIR_OWN: dict[str, Callable[[Optimizer], Any]] = {
    "OneCycleLR": lambda o: OneCycleLR(o, [0.3, 0.03], total_steps=20, cycle_momentum=False),
    "CyclicLR": lambda o: CyclicLR(o, [0.01, 0.02], [0.3, 0.4], step_size_up=4, cycle_momentum=False),
    "SWALR": lambda o: SWALR(o, [0.05, 0.005], anneal_epochs=4),
}
PLAN = Plan([Rule("*", optimizer="SGD", lr=1.0, momentum=0.9), Rule("head", lr=scale(0.1))])
EDITS: dict[str, tuple[Plan, float, float]] = {
    "the peak": (Plan([Rule("*", optimizer="SGD", lr=0.5, momentum=0.9), Rule("head", lr=scale(0.1))]), 0.5, 0.05),
    "a rule added": (PLAN + [Rule("head", lr=scale(3.0))], 1.0, 0.3),
    "a rule's number": (Plan([PLAN.rules[0], Rule("head", lr=scale(0.02))]), 1.0, 0.02),
    "the weight decay": (PLAN + [Rule("*", weight_decay=0.1)], 1.0, 0.1),
    "a rule that was replaced": (Plan([PLAN.rules[0], Rule("head", lr=0.7)]), 1.0, 0.7),
}
multiplying = pytest.mark.parametrize("make", MULTIPLYING.values(), ids=MULTIPLYING)
edits = pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
ways_in = pytest.mark.parametrize("way_in", ["load_state_dict", "scheduler first", "regroup", "checkpoint"])


def net() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})


def update(optimizer: Optimizer, scheduler: Any) -> None:
    optimizer.step()
    scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def reference(make: Callable[[Optimizer], Any], body: float, head: float) -> list[list[float]]:
    """The rates at every update of a plain torch optimizer."""
    model = net()
    groups = [{"params": model["body"].parameters(), "lr": body}, {"params": model["head"].parameters(), "lr": head}]
    plain = torch.optim.SGD(groups, lr=body)
    scheduler, found = make(plain), []
    for _ in range(DONE + AFTER + 1):
        found.append(rates(plain))
        update(plain, scheduler)
    return found


def rebased(scheduler: Any, optimizer: Optimizer) -> None:
    """What the warning says."""
    for each in [scheduler, *getattr(scheduler, "_schedulers", [])]:
        if "base_lrs" in vars(each):
            each.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]


def edited(
    make: Callable[[Optimizer], Any], plan: Plan, way_in: str, folder: Path
) -> tuple[GroupedOptimizer, Any, list[str]]:
    """A run of `DONE` updates that goes on under another plan, and what was said."""
    first = GroupedOptimizer(net(), PLAN)
    scheduler = make(first)
    for _ in range(DONE):
        update(first, scheduler)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", GroupwiseWarning)
        if way_in == "regroup":
            first.regroup(plan)
            return first, scheduler, [str(each.message) for each in said]
        again = GroupedOptimizer(net(), plan)
        own = make(again)
        if way_in == "checkpoint":
            save(folder / "run.pt", optimizer=first, scheduler=scheduler)
            load(folder / "run.pt", optimizer=again, scheduler=own)
        elif way_in == "scheduler first":
            own.load_state_dict(scheduler.state_dict())
            again.load_state_dict(first.state_dict())
        elif way_in == "load_state_dict":
            again.load_state_dict(first.state_dict())
            own.load_state_dict(scheduler.state_dict())
    return again, own, [str(each.message) for each in said]


@multiplying
@edits
@ways_in
def test_an_edited_rate_goes_on_from_the_share_of_its_base_that_was_reached(
    make: Callable[[Optimizer], Any], edit: tuple[Plan, float, float], way_in: str, tmp_path: Path
) -> None:
    plan, body, head = edit
    optimizer, scheduler, said = edited(make, plan, way_in, tmp_path)
    expected = reference(make, body, head)[DONE:]
    assert rates(optimizer) == pytest.approx(expected[0])
    assert len(said) == ((body, head) != (1.0, 0.1)), said
    rebased(scheduler, optimizer)
    for after in expected[1:]:
        update(optimizer, scheduler)
        assert rates(optimizer) == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize("make", WITH_RATES_OF_THEIR_OWN.values(), ids=WITH_RATES_OF_THEIR_OWN)
@edits
@pytest.mark.parametrize("way_in", ["load_state_dict", "regroup", "checkpoint"])
def test_rates_that_a_scheduler_gives_itself_stand_and_an_edit_that_does_nothing_is_told(
    make: Callable[[Optimizer], Any], edit: tuple[Plan, float, float], way_in: str, tmp_path: Path
) -> None:
    plan, body, head = edit
    optimizer, scheduler, said = edited(make, plan, way_in, tmp_path)
    expected = reference(make, 1.0, 0.1)[DONE:]
    assert rates(optimizer) == pytest.approx(expected[0])
    changed = (body, head) != (1.0, 0.1)
    assert ["gives rates of its own" in each for each in said] == [True] * changed
    for after in expected[1:]:
        update(optimizer, scheduler)
        assert rates(optimizer) == pytest.approx(after)


@multiplying
def test_a_group_that_is_split_goes_on_in_both_parts(make: Callable[[Optimizer], Any], tmp_path: Path) -> None:
    factor = reference(make, 1.0, 1.0)[DONE][0]
    first = GroupedOptimizer(net(), PLAN)
    scheduler = make(first)
    for _ in range(DONE):
        update(first, scheduler)
    again = GroupedOptimizer(net(), PLAN + [Rule("head.bias", lr=scale(0.5)), Rule("body.bias", weight_decay=0.1)])
    with pytest.warns(GroupwiseWarning, match=r"another lr for head/head\.bias"):
        again.load_state_dict(first.state_dict())
    found = {tuple(group["param_names"]): group["lr"] for group in again.param_groups}
    wanted = {("body.weight",): 1.0, ("body.bias",): 1.0, ("head.weight",): 0.1, ("head.bias",): 0.05}
    assert found == {names: pytest.approx(rate * factor) for names, rate in wanted.items()}


@multiplying
def test_groups_that_a_rule_kept_apart_go_on_together(make: Callable[[Optimizer], Any], tmp_path: Path) -> None:
    factor = reference(make, 1.0, 1.0)[DONE][0]
    first = GroupedOptimizer(net(), PLAN)
    scheduler = make(first)
    for _ in range(DONE):
        update(first, scheduler)
    again = GroupedOptimizer(net(), Plan(PLAN.rules[:1]))
    with pytest.warns(GroupwiseWarning, match="another lr for base"):
        again.load_state_dict(first.state_dict())
    assert rates(again) == [pytest.approx(factor)]


def test_groups_that_come_together_at_different_shares_go_on_at_the_lowest_rate() -> None:
    first = GroupedOptimizer(net(), PLAN)
    scheduler = LambdaLR(first, [lambda step: 0.5**step, lambda step: 0.25**step])
    update(first, scheduler)
    again = GroupedOptimizer(net(), Plan(PLAN.rules[:1]))
    with pytest.warns(GroupwiseWarning, match=r"goes on at the lowest, 0\.25; the highest was 0\.5"):
        again.load_state_dict(first.state_dict())
    assert rates(again) == [0.25]


@pytest.mark.parametrize("way_in", ["load_state_dict", "regroup"])
def test_an_edit_that_a_scheduler_undoes_is_told_when_it_does(way_in: str, tmp_path: Path) -> None:
    optimizer, scheduler, said = edited(lambda o: LambdaLR(o, lambda step: 1.0), EDITS["the peak"][0], way_in, tmp_path)
    assert (rates(optimizer), said) == ([0.5, 0.05], [])
    update(optimizer, scheduler)
    with pytest.warns(
        GroupwiseWarning, match=r"has put the lr of base, head back .* 'base' is at 1 again, not at 0\.5"
    ):
        update(optimizer, scheduler)


def test_an_edit_that_a_scheduler_obeys_is_not_told(tmp_path: Path) -> None:
    make = lambda o: StepLR(o, 9)  # noqa: E731
    optimizer, scheduler, said = edited(make, EDITS["the peak"][0], "load_state_dict", tmp_path)
    assert (rates(optimizer), said) == ([0.5, 0.05], [])
    for _ in range(6):
        update(optimizer, scheduler)
    assert rates(optimizer) == pytest.approx([0.05, 0.005])


def test_a_scheduled_plan_that_another_scheduler_multiplies_resumes_where_it_was() -> None:
    scheduled = Plan([Rule("*", optimizer="SGD", lr=cosine(1.0))])
    first = GroupedOptimizer(net(), scheduled)
    scheduler = ExponentialLR(first, 0.5)
    with pytest.warns(GroupwiseWarning, match="no PlanScheduler is attached"):
        for _ in range(DONE):
            update(first, scheduler)
    again = GroupedOptimizer(net(), scheduled)
    ExponentialLR(again, 0.5)
    again.load_state_dict(first.state_dict())
    assert rates(again) == [0.5**DONE]


def test_an_edited_schedule_is_the_plan_schedulers_from_the_resume_on() -> None:
    first = GroupedOptimizer(net(), Plan([Rule("*", optimizer="SGD", lr=cosine(1.0))]))
    scheduler = PlanScheduler(first, total_steps=20)
    for _ in range(10):
        update(first, scheduler)
    for halved, wanted in ((cosine(0.5), 0.25), (0.125, 0.125)):
        again = GroupedOptimizer(net(), Plan([Rule("*", optimizer="SGD", lr=halved)]))
        own = PlanScheduler(again, total_steps=20)
        again.load_state_dict(first.state_dict())
        own.load_state_dict(scheduler.state_dict())
        assert rates(again) == [pytest.approx(wanted)]


def test_a_constant_rate_that_a_plan_scheduler_left_alone_is_edited_in_silence() -> None:
    first = GroupedOptimizer(net(), PLAN)
    scheduler = PlanScheduler(first)
    update(first, scheduler)
    again = GroupedOptimizer(net(), EDITS["the peak"][0])
    own = PlanScheduler(again)
    again.load_state_dict(first.state_dict())
    for _ in range(3):
        update(again, own)
    assert rates(again) == [0.5, 0.05]
