"""An adapter begins as nothing and ends as a change of its matrix, nothing else moves, and rows differ in B's rate."""

import pytest
import torch
from torch import nn

from examples.lora.compare import RATIOS, contestants, plain, plan, planned
from examples.lora.train import PLAN, RANK, LoRA, load, networks, pretrained, train
from groupwise import Plan


def test_reviews_of_the_search_are_those_of_the_training_and_the_test_has_others() -> None:
    joint = len(load("search")) + len(load("validation"))
    assert len(load("train")) == joint + 1  # the line break between them
    assert len(load("test")) > 2 * len(load("train"))


def test_an_adapter_is_a_change_of_its_matrix() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(6, 5).double(), torch.randn(3, 6, dtype=torch.float64)
    layer = LoRA(base).double()
    torch.testing.assert_close(layer(x), base(x), rtol=0, atol=0)
    nn.init.normal_(layer.lora_B.weight)
    merged = base.weight + 2 * layer.lora_B.weight @ layer.lora_A.weight
    torch.testing.assert_close(layer(x), x @ merged.T + base.bias)


def test_adapters_stand_at_every_matrix_of_the_blocks_and_change_nothing_at_first() -> None:
    model, before = networks(seed=0), pretrained()
    adapted = {name for name, module in model.named_modules() if isinstance(module, LoRA)}
    linear = {name for name, module in before.named_modules() if "blocks" in name and isinstance(module, nn.Linear)}
    assert adapted == linear
    text = load("validation")[None, :64]
    torch.testing.assert_close(model["gpt"](text), before["gpt"](text), rtol=0, atol=0)


def test_only_adapters_are_trained() -> None:
    model = networks(seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, scheduler = planned(model, 1e-2, 3, ratio=4.0)
    train(model, optimizer, scheduler, "search", 3, seed=0)
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {name for name in before if "lora_" in name}
    assert len(changed) == 2 * 12
    assert {before[name].shape[0] for name in changed if "lora_A" in name} == {RANK}


def test_the_baseline_is_the_plan_with_one_rate() -> None:
    weights = []
    for build in (plain, lambda *given: planned(*given, ratio=1.0)):
        model = networks(seed=1)
        optimizer, scheduler = build(model, 1e-2, 5)
        train(model, optimizer, scheduler, "search", 5, seed=1)
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_b_has_its_multiple_of_the_rate_of_a(ratio: float) -> None:
    model = networks(seed=0)
    optimizer, _ = planned(model, 1e-2, 5, ratio=ratio)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(weight)]: group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    for name, rate in rates.items():
        if "lora_" in name:
            assert rate == pytest.approx(1e-2 * (ratio if "lora_B" in name else 1))


def test_all_rows_search_around_the_same_geometric_mean() -> None:
    for contestant, ratio in zip(contestants(), (1.0, *RATIOS), strict=False):
        assert contestant.rates[0] * ratio**0.5 == pytest.approx(contestants()[0].rates[0])


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(1e-2, 4.0)
