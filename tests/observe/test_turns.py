"""Networks that take updates in turns: each is measured, whatever the turns and the cadences are."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Observer, Plan, Rule
from groupwise.observe.cadence import Cadence
from groupwise.records import read


@pytest.mark.parametrize("of_critic", [1, 2, 5])
def test_both_networks_of_a_gan_have_every_statistic_of_an_update_at_the_default_cadences(
    tmp_path: Path, of_critic: int
) -> None:
    networks = {"generator": nn.Linear(2, 2), "critic": nn.Linear(2, 1)}
    optimizer = GroupedOptimizer(networks, Plan([Rule("*", optimizer="Adam", lr=1e-3)]))
    with Observer(optimizer, tmp_path):
        for _ in range(300 // (of_critic + 1)):
            for name in [*["critic"] * of_critic, "generator"]:
                view = optimizer.only(name)
                networks["critic"](networks["generator"](torch.randn(8, 2))).square().mean().backward()
                view.step()
                optimizer.zero_grad()
    run = read(tmp_path)
    groups = [group.name for group in run.groups]
    measured = {name: len(run.series("groups", name, "update_ratio").steps) for name in groups}
    assert len(measured) == 2
    assert min(measured.values()) >= 15 / (of_critic + 1) / 2, measured


@given(st.integers(2, 120), st.integers(2, 12), st.integers(0, 11))
@example(28, 5, 1)  # places that move on by the golden section meet three of these turns alone
def test_a_family_meets_every_turn_and_as_often_as_its_number_says(every: int, turns: int, turn: int) -> None:
    cadence = Cadence({"updates": every, "cosines": 0}, turns=True)
    steps = [step for step in range(every * turns * 20) if "updates" in cadence.due(step)]
    assert len(steps) == turns * 20
    assert [step // every for step in steps] == [*range(turns * 20)]
    assert sum(step % turns == turn % turns for step in steps) >= 5
    assert all(cadence.rests(step) == (step not in set(steps)) for step in range(3 * every))


def test_one_network_is_measured_at_the_updates_that_its_numbers_divide() -> None:
    assert [step for step in range(100) if "updates" in Cadence({"updates": 20, "cosines": 0}).due(step)] == [
        0, 20, 40, 60, 80,
    ]  # fmt: skip


def test_a_regroup_that_changes_nothing_is_no_event_and_one_that_moves_a_parameter_is(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("0.weight", label="slow", lr=0.01)])
    optimizer = GroupedOptimizer(model, plan)
    moved = Plan([plan.rules[0], Rule("1.weight", label="slow", lr=0.01)])
    with Observer(optimizer, tmp_path):
        for now in (plan, plan, moved, moved):
            optimizer.regroup(now)
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    events = [(event.step, event.event, event.text) for event in read(tmp_path).events]
    assert events == [(2, "groups", "2 groups from here on"), (4, "finished", "")]
