"""The text is split in order, the model sees no character before its time, and rows differ in their plan alone."""

import pytest
import torch

from examples.char_gpt.compare import RATES, TABLES, plain, plan, planned
from examples.char_gpt.train import CHARACTERS, CONTEXT, GPT, PLAN, load, networks, train, windows
from groupwise import Plan
from groupwise.optim import resolve


def test_the_search_is_judged_by_text_of_the_training_and_the_test_by_none_of_it() -> None:
    (text, test), (search, validation) = load(), load(validation=True)
    assert len(text) + len(test) > 450_000
    assert len(test) > len(text) // 10
    assert torch.equal(torch.cat([search, validation]), text)


def test_what_follows_is_one_character_later() -> None:
    inputs, following = windows(torch.arange(1000), 50, torch.Generator().manual_seed(0))
    assert inputs.shape == (50, CONTEXT)
    assert torch.equal(following, inputs + 1)


def test_no_logit_depends_on_a_later_character() -> None:
    model = GPT(width=16)
    text = torch.randint(len(CHARACTERS), (2, CONTEXT))
    changed = text.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % len(CHARACTERS)
    before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_the_baseline_is_the_plan_without_a_group() -> None:
    weights = []
    for build in (plain, planned):
        model = networks(seed=1, width=16)
        optimizer, scheduler = build(model, 6e-3, 10)
        train(model, optimizer, scheduler, load()[0], 10, seed=1)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_muon_has_every_matrix_of_the_blocks_and_nothing_else() -> None:
    resolution = resolve(dict(networks(seed=0).items()), Plan.load(PLAN))
    under_muon = {info.name for group in resolution.groups if group.algorithm == "Muon" for info in group.parameters}
    blocks = {
        name for name, parameter in networks(seed=0).named_parameters() if "blocks" in name and parameter.ndim == 2
    }
    assert under_muon == blocks


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_everybody_searches_as_many_rates(rates: tuple[float, ...]) -> None:
    assert len(rates) == 4


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(2e-2, muon=("attention", "mlp"), tables=TABLES)
