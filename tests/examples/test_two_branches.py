"""The paired task needs both branches, its test is of unseen scans, and its baseline is a plan of one rule."""

from functools import partial

import pytest
import torch

from examples.two_branches.compare import plain, plan, planned
from examples.two_branches.train import PLAN, Scans, load, networks, score, train
from groupwise import Plan


def test_no_scan_of_the_test_is_trained_on_or_searched_with() -> None:
    (train_scans, test), (search, validation) = load(), load(validation=True)
    assert [len(part.digits) for part in (train_scans, test, search, validation)] == [1300, 497, 1000, 300]
    assert torch.equal(torch.cat([search.raw, validation.raw]), train_scans.raw)


def test_a_number_is_made_of_what_is_seen_and_what_is_heard() -> None:
    scans = Scans(torch.arange(10.0).view(10, 1, 1), -torch.arange(10.0).view(10, 1, 1), torch.arange(10))
    images, rows, numbers = scans.pairs(500, torch.Generator().manual_seed(0))
    assert torch.equal(numbers, (10 * images.flatten() - rows.flatten()).long())
    assert torch.equal(scans.pairs(500, torch.Generator().manual_seed(0), standardise=True)[0], -images)


def test_an_untrained_network_is_right_by_chance_alone() -> None:
    percent = score(networks(seed=0), load()[1])
    assert percent["number"] < 5
    assert percent["seen"] < 30
    assert percent["heard"] < 30


@pytest.mark.parametrize("algorithm", ["AdamW", "SGD"])
def test_the_baseline_is_the_plan_of_one_rule(algorithm: str) -> None:
    """What the rows of the table differ in is the plan, and nothing else."""
    weights = []
    for build in (partial(plain, algorithm=algorithm), partial(planned, algorithm=algorithm)):
        model = networks(seed=1)
        optimizer, scheduler = build(model, 1e-2, 20)
        train(model, optimizer, scheduler, load()[0], 20, seed=1)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_a_joint_bound_spans_the_networks_and_a_bound_for_each_does_not() -> None:
    scopes = {}
    for each in (False, True):
        model = networks(seed=1)
        optimizer, scheduler = planned(model, 1e-2, 5, each=each)
        train(model, optimizer, scheduler, load()[0], 1, seed=1)
        scopes[each] = len(optimizer.measured)
    assert scopes == {False: 1, True: 3}


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(1e-2, each=True, differential=True)
