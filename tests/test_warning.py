"""A warning points at the line of the program that made the mistake, whatever lies between."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from groupwise import Balancer, GroupedOptimizer, GroupwiseWarning, Plan, PlanScheduler, Rule
from groupwise.balance import Uncertainty
from groupwise.schedules import cosine

SCHEDULED = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-3))])


def line_of_the_warning(run: Callable[[], object]) -> tuple[str, str]:
    """The file and the source line that the first of the warnings points at."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    first = next(each for each in caught if issubclass(each.category, GroupwiseWarning))
    with open(first.filename) as file:
        return first.filename, file.read().splitlines()[first.lineno - 1].strip()


def unscheduled() -> GroupedOptimizer:
    net = nn.Linear(3, 2)
    optimizer = GroupedOptimizer(net, SCHEDULED)
    net(torch.ones(1, 3)).sum().backward()
    return optimizer


def bare() -> None:
    optimizer = unscheduled()
    for _ in range(2):
        optimizer.step()  # here


def hooked() -> None:
    optimizer = unscheduled()
    optimizer.register_step_pre_hook(lambda *_: None)
    for _ in range(2):
        optimizer.step()  # here


def profiled() -> None:
    optimizer = unscheduled()
    with torch.autograd.profiler.profile():
        for _ in range(2):
            optimizer.step()  # here


def with_closure() -> None:
    optimizer = unscheduled()
    for _ in range(2):
        optimizer.step(lambda: 0.0)  # here


def of_one_network() -> None:
    nets = {"one": nn.Linear(3, 2), "two": nn.Linear(3, 2)}
    optimizer = GroupedOptimizer(nets, SCHEDULED)
    nets["one"](torch.ones(1, 3)).sum().backward()
    for _ in range(2):
        optimizer.only("one").step()  # here


def under_accelerate() -> None:
    prepared: Any = Accelerator(cpu=True).prepare(unscheduled())
    for _ in range(2):
        prepared.step()  # here


def scheduler_per_epoch() -> None:
    optimizer = unscheduled()
    scheduler = PlanScheduler(optimizer, total_steps=10)
    for _ in range(2):
        optimizer.step()
    scheduler.step()  # here


def accumulated() -> None:
    net = nn.Linear(3, 2)
    balancer = Balancer(Uncertainty())
    for _ in range(1000):
        balancer.accumulate({task: net(torch.ones(1, 3)).square().sum() for task in "ab"})  # here


PROGRAMS = (bare, hooked, profiled, with_closure, of_one_network, under_accelerate, scheduler_per_epoch, accumulated)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_warning_points_at_the_line_of_the_program(program: Callable[[], None]) -> None:
    file, line = line_of_the_warning(program)
    assert file == inspect.getsourcefile(program)
    assert line.endswith("# here")
