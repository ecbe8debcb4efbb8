"""An adopted plan is the program: the same groups, values and schedules, the same training, to the last bit."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from groupwise import GroupedOptimizer, Plan, PlanScheduler
from groupwise.adopt import adopt
from groupwise.optim.algorithms import hyperparameters_of
from groupwise.select import parameters_of
from tests.adopt.programs import SCHEDULERS, Net, programs

TOKENS = torch.arange(11).reshape(1, 11)


def values_of(optimizers: list[torch.optim.Optimizer], net: Net) -> dict[str, tuple[type, dict[str, Any]]]:
    """By parameter its class and the arguments of the constructor that its group holds."""
    names = {id(info.parameter): info.name for info in parameters_of(net)}
    return {
        names[id(p)]: (type(o), {key: group[key] for key in hyperparameters_of(type(o)) if key in group})
        for o in optimizers
        for group in o.param_groups
        for p in group["params"]
    }


def live_values(optimizer: GroupedOptimizer, net: Net) -> dict[str, tuple[str, dict[str, Any]]]:
    """The same of the groups that train under a plan."""
    names = {id(info.parameter): info.name for info in parameters_of(net)}
    return {
        names[id(p)]: (group["algorithm"], group)
        for group in optimizer.param_groups
        if not group["frozen"]
        for p in group["params"]
    }


def train(net: Net, step: Any, n: int) -> None:
    """A few updates."""
    for _ in range(n):
        net.zero_grad()
        loss = net(TOKENS)
        if loss.requires_grad:
            loss.backward()
        step()


@given(programs())
@settings(max_examples=60, deadline=None)
def test_every_group_has_the_programs_class_and_values_and_training_is_equal_to_the_last_bit(
    program: tuple[Net, list[torch.optim.Optimizer]],
) -> None:
    net, optimizers = program
    twin = copy.deepcopy(net)
    found = adopt(net, optimizers)
    optimizer = GroupedOptimizer(twin, found.plan)
    expected, live = values_of(optimizers, net), live_values(optimizer, twin)
    assert live.keys() == expected.keys()
    for name, (cls, values) in expected.items():
        algorithm, group = live[name]
        assert algorithm.rpartition(":")[2] == cls.__name__
        assert {key: group[key] for key in values} == values

    train(net, lambda: [o.step() for o in optimizers], 4)
    train(twin, optimizer.step, 4)
    owned = set(expected)
    for (name, p), (_, q) in zip(net.named_parameters(), twin.named_parameters(), strict=True):
        if name in owned:
            assert torch.equal(p, q), name


@given(programs())
@settings(max_examples=40, deadline=None)
def test_an_adopted_plan_survives_its_file(program: tuple[Net, list[torch.optim.Optimizer]]) -> None:
    net, optimizers = program
    found = adopt(net, optimizers)
    assert found.lost == ()
    assert Plan.loads(found.text("train:build"), allow=found.allow) == found.plan


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@given(program=programs())
@settings(max_examples=8, deadline=None)
def test_rates_over_time_are_the_schedulers(make: Any, program: tuple[Net, list[torch.optim.Optimizer]]) -> None:
    net, optimizers = program
    optimizers = [
        o for o in optimizers if make is not SCHEDULERS["one cycle"] or "momentum" in o.defaults
    ] or optimizers
    schedulers = [make(o) if {"momentum", "betas"} & o.defaults.keys() else SCHEDULERS["step"](o) for o in optimizers]
    twin = copy.deepcopy(net)
    found = adopt(net, optimizers, schedulers)
    assert found.lost == ()
    optimizer = GroupedOptimizer(twin, found.plan)
    scheduler = PlanScheduler(optimizer)
    assert Plan.loads(found.text(), allow=found.allow) == found.plan
    for _ in range(19):
        expected, live = values_of(optimizers, net), live_values(optimizer, twin)
        for name, (_, values) in expected.items():
            for key in ("lr", "momentum", "betas"):
                if key in values:
                    assert live[name][1][key] == pytest.approx(values[key], rel=1e-9, abs=1e-18), (name, key)
        train(net, lambda: [o.step() for o in optimizers], 1)
        train(twin, optimizer.step, 1)
        scheduler.step()
        for each in schedulers:
            each.step()
