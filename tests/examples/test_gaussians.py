"""Split Gaussians are where they should be, and a plan carries what published code carries by hand."""

import math

import pytest
import torch

from examples.gaussians.compare import PUBLISHED, Builder, Carry, carried, forgotten, not_told, plain, plan, planned
from examples.gaussians.train import (
    BACKGROUND,
    PLAN,
    SMALLER,
    Gaussians,
    counts,
    load,
    networks,
    score,
    split,
    train,
)
from groupwise import Plan


def fitted(build: Builder, steps: int = 16) -> Gaussians:
    """A short fit with its three splits."""
    model = networks(seed=1)
    optimizer, scheduler, follow = build(model, 2e-2, steps)
    train(model, optimizer, scheduler, follow, load("china.jpg")[0], steps, seed=1, counts=counts())
    return model


def test_no_pixel_that_is_fitted_judges() -> None:
    one, other = load("china.jpg")
    places = {tuple(place) for place in torch.cat([one.places, other.places]).tolist()}
    assert len(one.places) == len(other.places) == len(places) / 2 == 96 * 96 / 2
    assert not torch.equal(one.colours, load("flower.jpg")[0].colours)


def test_a_colour_is_the_mean_by_densities_whose_covariance_is_turned_squares_of_sizes() -> None:
    model = networks(seed=0, count=5)
    with torch.no_grad():
        for parameter in (model.size, model.colour, model.opacity):
            parameter.add_(torch.randn_like(parameter) / 2)
    places, total, mass = torch.rand(7, 2) * 2 - 1, 0.5 * BACKGROUND * torch.ones(7, 3), torch.full((7, 1), BACKGROUND)
    for n in range(5):
        angle, sizes = model.angle[n], model.size[n].exp()
        turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        precision = torch.linalg.inv(turn @ sizes.square().diag() @ turn.T)
        away = places - model.position[n]
        weight = model.opacity[n].sigmoid() * (-(away @ precision * away).sum(1, keepdim=True) / 2).exp()
        total, mass = total + weight * model.colour[n], mass + weight
    torch.testing.assert_close(model(places), total / mass)


def test_the_transparent_are_dropped_and_the_strained_are_split() -> None:
    model = networks(seed=0, count=20)
    with torch.no_grad():
        model.opacity[3], model.colour[7] = -9.0, 0.25
    before, strain = model.size[0, 0].item(), torch.zeros(20)
    strain[7] = strain[3] = 1.0
    kept = split(model, strain, 20, torch.Generator().manual_seed(0))
    assert (~kept).nonzero().flatten().tolist() == [3, 7]
    assert [len(parameter) for parameter in model.parameters()] == [20] * 5
    assert (model.colour[18:] == 0.25).all()
    assert model.size.detach()[18:].flatten().tolist() == pytest.approx([before - math.log(SMALLER)] * 4)


def test_a_plan_carries_the_moments_as_by_hand() -> None:
    for ours, theirs in zip(
        fitted(lambda *given: planned(*given, factors={})).parameters(), fitted(plain).parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_rates_by_attribute_stay_with_their_attributes_through_a_split() -> None:
    model = networks(seed=0)
    optimizer, scheduler, follow = planned(model, 2e-2, 16, factors=PUBLISHED)
    train(model, optimizer, scheduler, follow, load("china.jpg")[0], 7, seed=0, counts=counts())
    share = scheduler.get_last_lr()[0] / optimizer.param_groups[0]["lr"]
    rates = {group["param_names"][0]: group["lr"] * share for group in optimizer.param_groups}
    for name, factor in PUBLISHED.items():
        assert rates[name] == pytest.approx(factor * rates["size"])
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("carry", [carried, forgotten, not_told])
def test_three_ways_to_follow_differ_in_the_moments_and_in_what_moves(carry: Carry) -> None:
    model = networks(seed=0)
    optimizer, scheduler, follow = plain(model, 2e-2, 16, carry=carry)
    train(model, optimizer, scheduler, follow, load("china.jpg")[0], 2, seed=0)
    moments = optimizer.state[model.colour]["exp_avg"].clone()
    kept = split(model, torch.rand(len(model.opacity)), 80, torch.Generator().manual_seed(0))
    follow(kept)
    if carry is carried:
        held = optimizer.state[model.colour]["exp_avg"]
        assert torch.equal(held[: kept.sum()], moments[kept])
        assert not held[kept.sum() :].any()
    else:
        assert model.colour not in optimizer.state
    before = model.colour.detach().clone()
    train(model, optimizer, scheduler, follow, load("china.jpg")[0], 1, seed=0)
    assert torch.equal(model.colour, before) == (carry is not_told)


def test_a_planned_optimizer_that_is_not_told_says_so_before_it_is_saved() -> None:
    model = networks(seed=0)
    optimizer, _, _ = planned(model, 2e-2, 16, factors=PUBLISHED)
    split(model, torch.rand(len(model.opacity)), 80, torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"no group holds \(position, size, angle"):
        optimizer.state_dict()


def test_of_a_fit_that_diverged_nothing_is_heard() -> None:
    model = networks(seed=0)
    torch.nn.init.constant_(model.colour, torch.nan)
    assert score(model, load("china.jpg")[1])["dB"] == 0


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(4e-2, PUBLISHED)
