"""What is kept is kept, shifts are what the page says, and no scan of the test is tuned on."""

import pytest
import torch
from torch import nn

from examples.input_shift.compare import by_relative_gradient, only, planned
from examples.input_shift.train import LABELS, PARTS, PLAN, Scans, load, networks, shifted, train
from groupwise import Plan
from groupwise.optim import resolve


def test_no_scan_has_two_uses() -> None:
    ends = sorted(PARTS.values())
    assert [start for start, _ in ends[1:]] == [end for _, end in ends[:-1]]
    assert ends[-1] == (1300, 1797)
    assert sum(len(load(part).digits) for part in PARTS) == 1797


@pytest.mark.parametrize("block", ["block1", "block2", "block3", "last"])
def test_a_block_that_is_not_tuned_keeps_its_values(block: str) -> None:
    model = networks(seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scans = load("labelled").draw(LABELS, torch.Generator().manual_seed(0))
    optimizer, scheduler = planned(model, 1e-2, 3, scans, block=block)
    train(model, optimizer, scheduler, scans.images, scans.digits, 3)
    changed = {name.partition(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {block}


def test_a_block_has_the_rate_of_its_relative_gradient() -> None:
    model, scans = networks(seed=0), load("labelled").draw(LABELS, torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(model(scans.images), scans.digits).backward()
    relative = {}
    for name, part in model.named_children():
        gradients = torch.cat([weight.grad.flatten().double() for weight in part.parameters()])
        weights = torch.cat([weight.detach().flatten().double() for weight in part.parameters()])
        relative[name] = (gradients.norm() / weights.norm()).item()
    model.zero_grad()
    rates = {}
    for group in resolve(model, by_relative_gradient(model, 1.0, scans)).torch_groups():
        rates |= dict.fromkeys(group["params"], group["lr"])
    for name, part in model.named_children():
        for weight in part.parameters():
            assert rates[weight] == pytest.approx(relative[name] / max(relative.values()), rel=1e-5)


def test_the_shifts_are_those_of_the_page() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[0, 0, 3, 3] = 1.0
    assert shifted(images, "low contrast").unique().tolist() == pytest.approx([0.7, 0.85])
    assert torch.equal(shifted(images, "inversion"), 1 - images)
    noise = shifted(torch.zeros(200, 1, 8, 8), "blur and noise", seed=3)
    assert noise.std().item() == pytest.approx(0.2, abs=0.01)
    blurred = shifted(images, "blur and noise", seed=3) - shifted(torch.zeros_like(images), "blur and noise", seed=3)
    expected = torch.zeros(8, 8)
    expected[2:5, 2:5] = 1 / 9
    torch.testing.assert_close(blurred[0, 0], expected)


def test_scans_are_drawn_without_repeats() -> None:
    scans = Scans(torch.arange(100.0).view(100, 1, 1, 1), torch.arange(100))
    assert len(scans.draw(60, torch.Generator().manual_seed(0)).digits.unique()) == 60


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == only("last", 1e-2)
