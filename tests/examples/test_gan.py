"""The distance is Fréchet's, a turn moves one network, and rows differ in their settings alone."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import examples.gan.train as program
from examples.gan.compare import Builder, plain, plan, planned
from examples.gan.train import PLAN, classifier, frechet, load, networks, score, train
from groupwise import Plan


def test_no_scan_of_the_test_is_trained_on_or_searched_with() -> None:
    (scans, test), (search, validation) = load(), load(validation=True)
    assert [len(part) for part in (scans, test, search, validation)] == [1300, 497, 1000, 300]
    assert torch.equal(torch.cat([search, validation]), scans)


def test_the_distance_of_independent_features_is_that_of_means_and_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of normal distributions with diagonal covariances: Σ (μ - μ')² + (σ - σ')²."""
    monkeypatch.setattr(program, "classifier", lambda: nn.Sequential(nn.Identity(), nn.Identity()))
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * (3 / 4) ** 0.5
    one, other = corners * torch.tensor([2.0, 3.0]), corners * torch.tensor([5.0, 1.0]) + torch.tensor([0.5, -1.0])
    assert frechet(one, other) == pytest.approx(0.25 + 1 + 9 + 4, rel=1e-5)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)


def test_the_classifier_names_scans_that_it_has_not_seen_and_draws_no_number_of_the_program() -> None:
    state = torch.get_rng_state()
    classifier.cache_clear()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))[1300:]
    right = classifier()(load()[1]).argmax(1) == torch.as_tensor(load_digits().target)[order]
    assert right.float().mean() > 0.95
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("build", [plain, planned])
def test_a_turn_moves_one_network_and_leaves_the_other_without_a_gradient(build: Builder) -> None:
    model = networks(seed=0)
    turn, _, _ = build(model, 1e-2, 5)
    before = {name: torch.cat([p.detach().flatten() for p in network.parameters()]) for name, network in model.items()}
    with turn("critic") as optimizer:
        model["critic"](model["generator"](torch.randn(8, program.NOISE))).mean().backward()
        assert all(parameter.grad is None for parameter in model["generator"].parameters())
        optimizer.step()
    moved = {
        name: not torch.equal(before[name], torch.cat([p.detach().flatten() for p in network.parameters()]))
        for name, network in model.items()
    }
    assert moved == {"generator": False, "critic": True}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_baseline_is_the_plan_of_one_rule() -> None:
    weights = []
    for build in (plain, planned):
        model = networks(seed=1)
        turn, schedulers, _ = build(model, 6e-3, 10)
        train(model, turn, schedulers, load()[0], 10, seed=1)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_a_generator_that_diverged_is_infinitely_far() -> None:
    model = networks(seed=0)
    nn.init.constant_(model["generator"][0].weight, torch.nan)
    assert score(model, load()[1])["distance"] == float("inf")


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(1.6e-2, betas=(0.0, 0.99))
