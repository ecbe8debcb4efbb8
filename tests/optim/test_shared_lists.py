"""A wrapper that shares the optimizer's list of groups, as SAM's does, steps what the optimizer steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, scale
from groupwise.errors import GroupwiseError
from groupwise.schedules import cosine

PLAN = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=0.1), Rule("0", lr=scale(0.1))])
OTHER = PLAN + [Rule("2.bias", lr=scale(0.5)), Rule("0.bias", trainable=after("50%"))]


class Sharp(torch.optim.Optimizer):
    """Two steps for one update: up by the gradient, then the update from there, both over its own list of groups."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base.param_groups, {"rho": 0.05})
        self.base, base.param_groups = base, self.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        with torch.enable_grad():
            closure()
        moved = [(p, 0.05 * p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p, step in moved:
            p.add_(step)
        with torch.enable_grad():
            closure()
        for p, step in moved:
            p.sub_(step)
        self.base.step()


class Run:
    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.optimizer = GroupedOptimizer(self.model, plan)
        self.wrapper = Sharp(self.optimizer)
        self.scheduler = PlanScheduler(self.optimizer, total_steps=10)

    def train(self, steps: int) -> None:
        def closure() -> None:
            self.wrapper.zero_grad()
            self.model(torch.cos(torch.arange(12.0)).view(3, 4)).square().sum().backward()

        for _ in range(steps):
            self.wrapper.step(closure)
            self.scheduler.step()


def grown(run: Run) -> None:
    run.model.append(nn.Linear(2, 2))
    run.optimizer.regroup(model=run.model)


DOORS: dict[str, Callable[[Run], object]] = {
    "the same plan": lambda run: run.optimizer.regroup(),
    "another plan": lambda run: run.optimizer.regroup(OTHER),
    "another algorithm": lambda run: run.optimizer.regroup(PLAN + [Rule("2", optimizer="SGD", lr=0.1, weight_decay=0)]),
    "a model that has grown": grown,
    "a load": lambda run: run.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict())),
    "a resume": lambda run: run.optimizer.resume(copy.deepcopy(run.optimizer.state_dict()), prefer="checkpoint"),
    "a group that is added": lambda run: run.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]}),
}


@pytest.mark.filterwarnings("ignore::groupwise.GroupwiseWarning")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_whoever_shares_the_list_or_the_state_shares_it_after(door: Callable[[Run], object]) -> None:
    run = Run(PLAN)
    run.train(2)
    groups, state = run.wrapper.param_groups, run.optimizer.state
    door(run)
    assert run.optimizer.param_groups is groups is run.wrapper.param_groups
    assert run.optimizer.state is state
    assert set(run.optimizer.state) <= {p for group in groups for p in group["params"]}
    run.train(1)


def test_a_wrapped_optimizer_trains_after_a_regroup_as_one_that_had_the_plan_from_the_start() -> None:
    plain, regrouped = Run(OTHER), Run(PLAN)
    regrouped.optimizer.regroup(OTHER)
    plain.train(5)
    regrouped.train(5)
    for one, other in zip(plain.model.parameters(), regrouped.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_regroup_that_fails_leaves_list_and_state_as_they_were() -> None:
    run = Run(PLAN)
    run.train(2)
    groups, state = run.wrapper.param_groups, run.optimizer.state
    members, entries = list(groups), dict(state)
    run.model.append(nn.Linear(2, 2))
    with pytest.raises(GroupwiseError, match="1 epoch"):
        run.optimizer.regroup(PLAN + [Rule("3", lr=cosine(1.0, warmup="1 epoch"))], run.model)
    assert run.optimizer.param_groups is groups is run.wrapper.param_groups
    assert [id(group) for group in groups] == [id(group) for group in members]
    assert run.optimizer.state is state
    assert {p: id(own) for p, own in state.items()} == {p: id(own) for p, own in entries.items()}
