"""The reference solves the equation, the losses are those of the equation, and rows differ in the balance alone."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from examples.burgers.compare import SUM, plan
from examples.burgers.train import PLAN, VISCOSITY, exact, load, losses_of, networks, score, train
from groupwise import Balancer, GroupedOptimizer, Plan, PlanScheduler
from groupwise.balance import Static


def test_the_reference_is_the_quotient_of_the_two_integrals() -> None:
    """The integrals of Cole and Hopf by 400,001 trapezia, in place of 200 nodes of Gauss and Hermite."""
    for time, place in ((0.1, -0.3), (0.5, 0.05), (1.0, 0.01), (1.0, 0.7)):
        source = np.linspace(place - 4, place + 4, 400_001)
        exponent = -((place - source) ** 2) / (4 * VISCOSITY * time) - np.cos(np.pi * source) / (2 * np.pi * VISCOSITY)
        density = np.exp(exponent - exponent.max())
        by_hand = np.trapezoid((place - source) / time * density) / np.trapezoid(density)
        np.testing.assert_allclose(exact(np.array(time), np.array(place)), by_hand, rtol=1e-8, atol=1e-10)


def test_the_reference_solves_the_equation() -> None:
    time, place, h = np.array([0.2, 0.3, 0.6, 0.9]), np.array([0.4, -0.7, 0.1, -0.02]), 1e-4
    u = exact(time, place)
    by_time = (exact(time + h, place) - exact(time - h, place)) / (2 * h)
    by_place = (exact(time, place + h) - exact(time, place - h)) / (2 * h)
    bend = (exact(time, place + h) - 2 * u + exact(time, place - h)) / h**2
    np.testing.assert_allclose(by_time + u * by_place, VISCOSITY * bend, rtol=1e-4, atol=1e-5)


def test_the_reference_begins_and_ends_as_the_problem_says() -> None:
    places = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(exact(np.full(21, 1e-9), places), -np.sin(np.pi * places), atol=1e-6)
    np.testing.assert_allclose(exact(np.array([0.3, 0.9]), np.array([1.0, -1.0])), 0, atol=1e-12)


def test_no_point_of_the_search_is_one_of_the_test() -> None:
    points, searched = load()[0], load(validation=True)[0]
    assert len(points) == len(searched) == 19 * 101
    apart = points[:, :1] - searched[:, 0].unique()
    assert apart.abs().min() > 0.02


class Fan(nn.Module):
    """u = x / (1 + t), which solves the equation for every viscosity."""

    def forward(self, points: Tensor) -> Tensor:
        return points[:, 1:] / (1 + points[:, :1])


def test_the_losses_are_those_of_a_solution_in_closed_form() -> None:
    losses = losses_of(nn.ModuleDict({"u": Fan()}), torch.Generator().manual_seed(0))
    assert losses["equation"].item() < 1e-12
    x = np.linspace(-1, 1, 100_001)
    expected = np.mean((x + np.sin(math.pi * x)) ** 2)
    np.testing.assert_allclose(losses["start"].item(), expected, rtol=0.5)
    assert 0.25 < losses["edge"].item() < 1


def test_a_network_that_says_nothing_is_wrong_by_all() -> None:
    model = networks(seed=0)
    for parameter in model["u"][-1].parameters():
        nn.init.zeros_(parameter)
    np.testing.assert_allclose(score(model, *load())["error"], 100, rtol=1e-5)


def test_static_weights_by_hand_are_those_of_a_balancer() -> None:
    weights = SUM | {"start": 3.0}
    trained = []
    for make in (lambda: weights, partial(Balancer, Static(weights))):
        model = networks(seed=1)
        optimizer = GroupedOptimizer(dict(model.items()), plan(1e-2))
        train(model, optimizer, PlanScheduler(optimizer, total_steps=10), make(), 10, seed=1)
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*trained, rtol=1e-3, atol=1e-5)


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan(Plan.load(PLAN).rules) == plan(4e-2)
    assert Balancer.load(PLAN).method == Static(SUM | {"start": 3.0, "edge": 3.0})
