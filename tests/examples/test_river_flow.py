"""What is missing is filled, no hour has two uses, no change scores 100, and rows differ in the balance alone."""

from functools import partial

import pytest
import torch
from torch import nn

from examples.river_flow.compare import plan, weights
from examples.river_flow.train import GAUGES, PLAN, known, load, networks, score, train
from groupwise import Balancer, GroupedOptimizer, Plan, PlanScheduler
from groupwise.balance import Static


def test_a_missing_flow_is_the_oldest_that_is_known() -> None:
    nan = float("nan")
    flows = torch.tensor([[[1.0, 2.0], [3.0, nan], [nan, nan]]])
    assert known(flows).tolist() == [[[1.0, 2.0], [3.0, 2.0], [3.0, 2.0]]]


def test_nothing_is_missing_and_no_hour_has_two_uses() -> None:
    parts = {part: load(part) for part in ("search", "validation", "train", "test", "unseen")}
    assert all(hours.flows.isfinite().all() and hours.changes.isfinite().all() for hours in parts.values())
    joint = torch.cat([parts["search"].changes, parts["validation"].changes])
    assert torch.equal(joint, parts["train"].changes)
    hours = [torch.cat([each.flows.flatten(1), each.changes], 1) for each in parts.values()][2:]
    assert len(torch.cat(hours).unique(dim=0)) == sum(len(each) for each in hours) > 6500


def test_the_forecast_of_no_change_scores_a_hundred() -> None:
    model = networks(seed=0)
    for gauge in GAUGES:
        for parameter in model[gauge].parameters():
            nn.init.zeros_(parameter)
    assert list(score(model, "test").values()) == pytest.approx([100, 100, 100], rel=1e-5)


def test_weights_bring_every_loss_to_one_scale() -> None:
    squares = load("train").changes.double().square().mean(0)
    for gauge, square in zip(GAUGES, squares.tolist(), strict=True):
        assert weights(1.0)[gauge] * square == pytest.approx(1, rel=1e-4)
        assert weights(0.5)[gauge] == pytest.approx(square**-0.5, rel=1e-4)
    assert squares.max() / squares.min() > 5000


def test_static_weights_by_hand_are_those_of_a_balancer() -> None:
    by_gauge, trained = weights(0.5), []
    for make in (lambda: by_gauge, partial(Balancer, Static(by_gauge))):
        model = networks(seed=1)
        optimizer = GroupedOptimizer(dict(model.items()), plan(1e-2))
        train(model, optimizer, PlanScheduler(optimizer, total_steps=10), make(), load("search"), 10, seed=1)
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*trained, rtol=1e-3, atol=1e-5)


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan(Plan.load(PLAN).rules) == plan(2e-2)
    assert Balancer.load(PLAN).method == Static(
        {gauge: float(f"{weight:.3g}") for gauge, weight in weights(0.5).items()}
    )
