"""The factor is 16 over the fan-in, at width 16 it is 1, and rows differ in it alone."""

import math

import pytest
import torch

from examples.widths.compare import BUILDERS, plan, planned
from examples.widths.train import PLAN, load, networks, score, train
from groupwise import GroupedOptimizer, Plan


def trained(builder: str, width: int) -> torch.Tensor:
    model = networks(seed=1, width=width)
    optimizer, scheduler = BUILDERS[builder](model, 8e-3, 10)
    train(model, optimizer, scheduler, load()[0], 10, seed=1)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("power", "factor"), [(-1.0, 16 / 64), (-0.5, 0.5), (None, 1.0)])
def test_what_multiplies_hidden_units_has_the_factor_of_its_fan_in(power: float | None, factor: float) -> None:
    model = networks(seed=0, width=64)
    optimizer = GroupedOptimizer(dict(model.items()), plan(1.0, power))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        wide = name.endswith("weight") and parameter.shape[1] == 64
        assert rates[id(parameter)] / rates[id(model["network"][0].weight)] == pytest.approx(factor if wide else 1.0)


def test_at_the_narrowest_width_all_rows_are_the_baseline() -> None:
    baseline = trained("no factor", 16)
    for builder in BUILDERS:
        torch.testing.assert_close(trained(builder, 16), baseline, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(trained("16 / fan-in", 64), trained("no factor", 64), atol=1e-3)


def test_an_untrained_network_gives_every_number_the_same_chance() -> None:
    assert score(networks(seed=0), load()[1])["test loss"] == pytest.approx(math.log(100), rel=1e-5)


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(3.2e-2)
    assert planned(networks(seed=0), 1e-2, 5)[0].param_groups
