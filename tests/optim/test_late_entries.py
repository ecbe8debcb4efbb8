"""A switch that is turned on after the first step: what its class keeps for it begins at zero."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.schedules import linear

LATE: Mapping[str, tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "amsgrad": ("AdamW", {"weight_decay": 0.1}, {"amsgrad": True}, ("max_exp_avg_sq",)),
    "centered": ("RMSprop", {"weight_decay": 0.0}, {"centered": True}, ("grad_avg",)),
    "momentum": ("RMSprop", {"weight_decay": 0.0}, {"momentum": 0.9}, ("momentum_buffer",)),
}


class Noisy(torch.optim.Optimizer):
    """A class that draws in its step."""

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 0.1)
                p.add_(self.state[p]["mean"] + torch.randn_like(p), alpha=-group["lr"])


class Masked(torch.optim.Optimizer):
    """A class whose entries are no numbers."""

    def __init__(self, params: Any, lr: float = 1e-2, masks: int = 1) -> None:
        super().__init__(params, {"lr": lr, "masks": masks})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if not self.state[p]:
                    self.state[p].update(mask=torch.zeros_like(p, dtype=torch.bool), kept=torch.ones_like(p).bool())
                p.sub_(torch.where(self.state[p]["mask"], 0.0, group["lr"] * p.grad))


def plan(name: str, **values: Any) -> Plan:
    return Plan([Rule("*", optimizer=name, lr=1e-2, **values)])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        x = torch.linspace(-1, 1, 12).reshape(3, 4) * (step + 1)
        (model(x) - x.sum()).square().mean().backward()
        optimizer.step()


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.allclose(p, q, rtol=0, atol=1e-7) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("door", ["regroup", "load", "by hand"])
@pytest.mark.parametrize("late", LATE)
def test_a_switch_turned_on_late_steps_as_torchs_class_whose_entry_is_zero(late: str, door: str) -> None:
    name, before, switch, entries = LATE[late]
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = GroupedOptimizer(model, plan(name, **before))
    train(model, optimizer, range(3))
    twin = copy.deepcopy(model)
    reference = getattr(torch.optim, name)(twin.parameters(), lr=1e-2, **before, **switch)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        reference.state[q] = copy.deepcopy(optimizer.state[p]) | {entry: torch.zeros_like(q) for entry in entries}
    if door == "regroup":
        optimizer.regroup(plan(name, **before, **switch))
    elif door == "load":
        saved, optimizer = optimizer.state_dict(), GroupedOptimizer(model, plan(name, **before, **switch))
        optimizer.load_state_dict(saved)
    else:
        optimizer.param_groups[0].update(switch)
    train(model, optimizer, range(3, 6))
    train(twin, reference, range(3, 6))
    assert equal(model, twin)


def test_a_scheduled_momentum_may_leave_zero_under_a_class_that_keeps_none_at_zero() -> None:
    model = nn.Linear(4, 2)
    twin = copy.deepcopy(model)
    optimizer = GroupedOptimizer(model, plan("RMSprop", weight_decay=0.0, momentum=linear(0.0, end=0.8)))
    scheduler = PlanScheduler(optimizer, total_steps=4)
    reference = torch.optim.RMSprop(twin.parameters(), lr=1e-2, momentum=0.1)
    for step in range(4):
        reference.param_groups[0]["momentum"] = 0.2 * step
        for p in twin.parameters():
            reference.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
            reference.state[p].setdefault("square_avg", torch.zeros_like(p))
            reference.state[p].setdefault("step", torch.tensor(0.0))
        train(model, optimizer, range(step, step + 1))
        train(twin, reference, range(step, step + 1))
        scheduler.step()
    assert equal(model, twin)


def test_a_switch_that_asks_for_nothing_adds_nothing() -> None:
    model = nn.Linear(4, 2)
    optimizer = GroupedOptimizer(model, plan("NAdam", weight_decay=0.1))
    train(model, optimizer, range(1))
    before = {p: set(own) for p, own in optimizer.state.items()}
    optimizer.param_groups[0]["decoupled_weight_decay"] = True
    train(model, optimizer, range(1))
    assert {p: set(own) for p, own in optimizer.state.items()} == before


@pytest.mark.parametrize(
    "name", ["Adam", "AdamW", "NAdam", "RMSprop", "Adadelta", "Adagrad", "Adamax", "ASGD", "Rprop"]
)
def test_an_entry_that_no_switch_asks_for_is_missed_as_by_torchs_class(name: str) -> None:
    cls = getattr(torch.optim, name)
    model = nn.Linear(4, 2)
    for lost in [key for key in state_of(cls(model.parameters(), lr=1e-2), model) if key != "step"]:
        results = []
        for make in (lambda own: cls(own.parameters(), lr=1e-2), lambda own: GroupedOptimizer(own, plan(name))):
            own = copy.deepcopy(model)
            optimizer = make(own)
            del state_of(optimizer, own)[lost]
            optimizer.param_groups[0]["maximize"] = True  # the group is looked at
            try:
                train(own, optimizer, range(1, 2))
            except KeyError as error:
                results.append(error.args)
        assert results == [(lost,)] * 2, (lost, results)


def state_of(optimizer: torch.optim.Optimizer, model: nn.Linear) -> dict[str, Any]:
    """The state of the weight after a step."""
    train(model, optimizer, range(1))
    own: dict[str, Any] = optimizer.state[model.weight]
    return own


def test_a_mask_that_a_class_keeps_is_no_late_entry() -> None:
    model = nn.Linear(4, 2)
    optimizer = GroupedOptimizer(model, plan(f"{__name__}:Masked"))
    train(model, optimizer, range(2))
    del optimizer.state[model.weight]["mask"]
    optimizer.param_groups[0]["masks"] = 2
    with pytest.raises(KeyError, match="mask"):
        train(model, optimizer, range(1))


def test_what_a_class_makes_is_tried_without_a_random_number_of_the_run() -> None:
    model = nn.Linear(4, 2)
    optimizer, resumed = (GroupedOptimizer(model, plan(f"{__name__}:Noisy")) for _ in range(2))
    train(model, optimizer, range(1))
    resumed.load_state_dict(optimizer.state_dict())
    torch.manual_seed(0)
    train(model, resumed, range(1))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    for p in model.parameters():
        torch.randn_like(p)
    assert torch.equal(drawn, torch.rand(1))
