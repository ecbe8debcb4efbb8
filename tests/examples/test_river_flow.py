"""The test is of whole stretches that no training sees, and the baseline is the plan of one rule with the plain sum."""

import torch

from examples.river_flow.compare import COSTS, balanced, method, plain, plan, run
from examples.river_flow.train import PLAN, STRETCH, load, networks, train, usual
from groupwise import Balancer, Plan
from groupwise.balance import NashMTL


def test_the_parts_are_whole_stretches_and_none_has_two_uses() -> None:
    (known, test), (search, validation) = load(), load(validation=True)
    assert len(known.flows) + len(test.flows) == 9125
    assert len(search.flows) + len(validation.flows) == len(known.flows)
    assert 0 in {len(part.flows) % STRETCH for part in (test, validation)}
    rows = {tuple(row) for row in test.inputs.tolist()}
    assert rows.isdisjoint(tuple(row) for row in search.inputs.tolist())


def test_the_loudest_gauge_is_thousands_of_times_the_quietest() -> None:
    variances = usual()[1] ** 2
    assert 1000 < (variances.max() / variances.min()).item() < 10_000


def test_the_baseline_is_the_plan_of_one_rule_with_equal_weights() -> None:
    weights = []
    for by_plan in (False, True):
        model = networks(seed=1)
        optimizer, scheduler, backward = plain(model, 1e-2, 20)
        if by_plan:
            optimizer, scheduler, backward = balanced(model, 1e-2, 20, name="raw sum")
        train(model, optimizer, scheduler, backward, load()[0], 20, seed=1)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_static_weights_undo_the_scales() -> None:
    one = torch.nn.Parameter(torch.ones(()))
    result = Balancer(method("1 / variance")).backward(dict.fromkeys(load()[0].gauges, 1.0 * one))
    for gauge, variance in zip(load()[0].gauges, load()[0].flows.var(0).tolist(), strict=True):
        assert abs(result.weights[gauge] * variance - 1) < 1e-4


def test_a_method_that_takes_longer_makes_fewer_updates() -> None:
    taken = []

    def counting(model: torch.nn.ModuleDict, rate: float, updates: int):  # type: ignore[no-untyped-def]
        taken.append(updates)
        return balanced(model, rate, updates, name="1 / variance")

    run(counting, COSTS["NashMTL()"], 1e-3, 0, 43, True)
    assert taken == [round(43 / COSTS["NashMTL()"])]


def test_the_plan_file_is_what_was_compared() -> None:
    loaded = Plan.load(PLAN)
    assert (loaded.rules, loaded.clip) == (plan(1e-2).rules, plan(1e-2).clip)
    assert Balancer.load(PLAN).method == NashMTL()
