"""A run that is resumed goes on as it would have, also where another scheduler has written over the plan's values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, LinearLR, SequentialLR

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import StateError
from groupwise.schedules import cosine, linear

PLAN = Plan(
    [
        Rule("*", optimizer="SGD", lr=cosine(1.0), momentum=linear(0.8, 0.9)),
        Rule("*.bias", lr=scale(0.1)),
        Rule("head", optimizer="AdamW", lr=1e-3, weight_decay=0.0, betas=(linear(0.8, 0.9), 0.98)),
    ]
)
STEPS = 10

Make = Callable[[GroupedOptimizer], Any]


def ours(optimizer: GroupedOptimizer) -> PlanScheduler:
    return PlanScheduler(optimizer, total_steps=6)


CONTAINERS: dict[str, Make] = {
    "the plan, then another": lambda o: SequentialLR(o, [ours(o), ConstantLR(o, 0.05, 99)], [4]),
    "another, then the plan": lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 4), ours(o)], [4]),
    "the plan between others": lambda o: SequentialLR(
        o, [LinearLR(o, 0.1, 1.0, 2), ours(o), ConstantLR(o, 0.05, 99)], [2, 6]
    ),
    "the plan, and a factor after it": lambda o: ChainedScheduler([ours(o), ConstantLR(o, 0.5, 4)], optimizer=o),
    "a factor, and the plan after it": lambda o: ChainedScheduler([ConstantLR(o, 0.5, 4), ours(o)], optimizer=o),
    "the plan alone": ours,
}


class Run:
    def __init__(self, make: Make, tensor: bool = False) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        self.optimizer = GroupedOptimizer(self.model, PLAN)
        if tensor:
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
        self.scheduler = make(self.optimizer)

    def train(self, steps: int) -> list[list[Any]]:
        seen = []
        for _ in range(steps):
            groups = self.optimizer.param_groups
            seen.append([(float(group["lr"]), group.get("momentum"), group.get("betas")) for group in groups])
            self.optimizer.zero_grad()
            self.model["head"](torch.tanh(self.model["body"](torch.ones(1, 2)))).square().sum().backward()
            self.optimizer.step()
            self.scheduler.step()
        return seen

    def resumed(self, make: Make, tensor: bool, optimizer_first: bool) -> Run:
        again = Run(make, tensor)
        again.model.load_state_dict(self.model.state_dict())
        loads = [
            lambda: again.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict())),
            lambda: again.scheduler.load_state_dict(copy.deepcopy(self.scheduler.state_dict())),
        ]
        for load in loads if optimizer_first else loads[::-1]:
            load()
        return again


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer_first", [True, False], ids=["optimizer first", "scheduler first"])
@pytest.mark.parametrize("tensor", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_a_resume_at_any_update_goes_on_as_the_run_would_have(make: Make, tensor: bool, optimizer_first: bool) -> None:
    whole = Run(make, tensor)
    course = whole.train(STEPS)
    for at in range(1, STEPS):
        begun = Run(make, tensor)
        begun.train(at)
        resumed = begun.resumed(make, tensor, optimizer_first)
        assert resumed.train(STEPS - at) == course[at:]
        for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_what_was_edited_by_hand_stands_until_the_next_step_as_it_would_have() -> None:
    begun = Run(ours)
    begun.train(2)
    begun.optimizer.param_groups[0] |= {"lr": 0.123, "momentum": 0.5}
    resumed = begun.resumed(ours, False, True)
    assert resumed.train(3) == begun.train(3)
    assert resumed.scheduler.state_dict()["overwritten"] == []


@pytest.mark.parametrize(
    ("overwritten", "message"),
    [
        (3, "'overwritten' is a list of group, hyperparameter and value, not 3"),
        ([["base", "lr"]], "'overwritten' is a list of group"),
        ([["base", "lr", "high"]], "'overwritten' has no number for lr of group 'base': 'high'"),
        ([["base", "lr", True]], "'overwritten' has no number for lr of group 'base'"),
    ],
)
def test_a_state_that_is_damaged_there_is_refused_and_changes_nothing(overwritten: Any, message: str) -> None:
    run = Run(ours)
    before = [dict(group) for group in run.optimizer.param_groups]
    with pytest.raises(StateError, match=message):
        run.scheduler.load_state_dict({"last_epoch": 3, "total_steps": 6, "overwritten": overwritten})
    assert [dict(group) for group in run.optimizer.param_groups] == before
    assert run.scheduler.last_epoch == 0


def test_an_older_state_without_it_loads() -> None:
    run = Run(ours)
    run.scheduler.load_state_dict({"last_epoch": 3, "total_steps": 6, "plateaus": {}})
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
