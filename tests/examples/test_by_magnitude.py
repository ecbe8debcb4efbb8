"""A tensor that grows past the bound changes its group at the next regroup, and only there."""

import torch

from examples.by_magnitude.compare import BOUND, plan, planned
from examples.by_magnitude.train import PARTS, PLAN, load, networks, train
from groupwise import Plan


def test_no_scan_has_two_uses() -> None:
    ends = sorted(PARTS.values())
    assert [start for start, _ in ends[1:]] == [end for _, end in ends[:-1]]
    assert sum(len(load(part)[1]) for part in PARTS) == 1797


def test_a_tensor_that_grew_past_the_bound_moves_with_its_state() -> None:
    model = networks(seed=0)
    optimizer, scheduler = planned(model, 1e-3, 10)
    assert train(model, optimizer, scheduler, "train", 2, seed=0) == 0
    bias = model[0].bias
    state = optimizer.state[bias]["exp_avg"].clone()
    with torch.no_grad():
        model[2].weight.mul_(3 * BOUND / model[2].weight.abs().mean())
    small = next(group for group in optimizer.param_groups if group["name"] == "small")
    assert any(each is model[2].weight for each in small["params"])
    optimizer.regroup()
    small = next(group for group in optimizer.param_groups if group["name"] == "small")
    assert not any(each is model[2].weight for each in small["params"])
    assert torch.equal(optimizer.state[bias]["exp_avg"], state)


def test_a_training_that_regroups_counts_what_moved() -> None:
    model = networks(seed=0)
    with torch.no_grad():
        model[2].weight.mul_(0.9999 * BOUND / model[2].weight.abs().mean())
    optimizer, scheduler = planned(model, 3e-2, 10)
    assert train(model, optimizer, scheduler, "train", 10, seed=0, regroup_every=2) >= 1


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(1e-2)
