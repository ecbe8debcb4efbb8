"""Pictures are read as they were written, and each row freezes and slows what it says."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from examples.transfer.compare import BY_PLAN, plan, planned
from examples.transfer.train import BATCH, PARTS, PLAN, SIDE, STEPS, idx, load, networks, train
from groupwise import Plan
from groupwise.optim import resolve


def rates_of(row: str) -> dict[str, float]:
    """The rate of every trainable parameter at a base rate of 1, by name."""
    model = networks(seed=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = resolve(model, plan(1.0, BY_PLAN[row])).torch_groups()
    return {names[id(weight)]: group["lr"] for group in groups for weight in group["params"]}


def test_an_idx_file_is_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x02" + b"\x00\x00\x00\x02" + b"\x00\x00\x00\x03" + bytes(range(6))))
    assert idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_no_picture_has_two_uses() -> None:
    own = sorted((start, end) for name, start, end in PARTS.values() if name == "train")
    assert [start for start, _ in own[1:]] == [end for _, end in own[:-1]]
    assert own[0][1] - own[0][0] == STEPS * BATCH


def test_a_picture_is_grey_enlarged_and_scaled_as_the_network_was_trained() -> None:
    images = load("validation").images
    assert images.shape[1:] == (3, SIDE, SIDE)
    assert torch.equal(images[:, 0], images[:, 2])
    assert -127 / 128 <= images.min() < images.max() <= 1


def test_of_the_head_alone_the_rest_keeps_its_values() -> None:
    model = networks(seed=0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer, scheduler = planned(model, 1e-2, 2, rules=BY_PLAN["head alone"])
    train(model, optimizer, scheduler, load("search"), 2, seed=0)
    changed = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert changed == {"_fc.weight", "_fc.bias"}


def test_the_backbone_has_a_tenth_of_the_rate() -> None:
    for name, rate in rates_of("discriminative: backbone × 0.1").items():
        assert rate == pytest.approx(1.0 if name.startswith("_fc") else 0.1)


def test_each_level_has_its_power_of_the_rate() -> None:
    """Level 0 is the stem, 16 blocks follow, and what comes after them is the top."""
    for name, rate in rates_of("layer-wise: × 0.85 a level").items():
        below = {"_conv_stem": 17, "_bn0": 17}.get(name.split(".")[0], 0)
        if name.startswith("_blocks."):
            below = 16 - int(name.split(".")[1])
        assert rate == pytest.approx(0.85**below)


def test_one_more_level_thaws_every_two_steps_from_the_top() -> None:
    model = networks(seed=0)
    optimizer, scheduler = planned(model, 1e-3, STEPS, rules=BY_PLAN["gradual unfreezing"])
    trained = []
    for _ in range(STEPS):
        trained.append({name for name, weight in model.named_parameters() if weight.requires_grad})
        optimizer.step()
        scheduler.step()
    assert {name.split(".")[0] for name in trained[0]} == {"_conv_head", "_bn1", "_fc"}
    assert all(before <= after for before, after in pairwise(trained))
    stem = [any(name.startswith("_conv_stem") for name in names) for names in trained]
    assert stem.index(True) == 2 * 17


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(1e-2, BY_PLAN["discriminative: backbone × 0.1"])
