"""What a run says of itself at its start: its length, what is frozen, what a clip's norm is joint over."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, clip_value
from groupwise.errors import RecordError
from groupwise.observe import Observer
from groupwise.records import Header, read
from groupwise.schedules import cosine
from tests.observe.nets import groups, net


def header_of(folder: Path, optimizer: torch.optim.Optimizer, **given: Any) -> Header:
    Observer(optimizer, folder, **given).close()
    return read(folder).header


def adamw() -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups(net()), lr=1e-3)


def test_the_lengths_are_those_of_the_plan_s_scheduler(tmp_path: Path) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))])
    optimizer = GroupedOptimizer(nn.Linear(2, 2), plan)
    scheduler = PlanScheduler(optimizer, total_steps=70, steps_per_epoch=7)
    header = header_of(tmp_path, optimizer, scheduler=scheduler)
    assert (header.total_steps, header.steps_per_epoch) == (70, 7)


def test_the_length_is_that_of_a_scheduler_which_has_one_or_the_callers_number(tmp_path: Path) -> None:
    optimizer = adamw()
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=30)
    assert header_of(tmp_path / "a", optimizer, scheduler=one_cycle).total_steps == 30
    assert header_of(tmp_path / "b", adamw(), total_steps=40).total_steps == 40
    assert header_of(tmp_path / "c", adamw()).total_steps is None


def test_a_length_that_is_none_or_two_is_a_clear_error(tmp_path: Path) -> None:
    optimizer = adamw()
    with pytest.raises(RecordError, match=r"Observer: total_steps=0: it has to be a positive whole number"):
        Observer(optimizer, tmp_path, total_steps=0)
    step = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    with pytest.raises(RecordError, match=r"scheduler: StepLR does not say how many .*: give total_steps=… instead"):
        Observer(optimizer, tmp_path, scheduler=step)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=30)
    with pytest.raises(RecordError, match="total_steps=40, and OneCycleLR has 30: give one of them"):
        Observer(optimizer, tmp_path, scheduler=one_cycle, total_steps=40)


def test_frozen_tensors_are_counted(tmp_path: Path) -> None:
    model = net()
    model.left.bias.requires_grad_(False)
    found = header_of(tmp_path, torch.optim.AdamW(groups(model), lr=1e-3)).groups
    assert {group.name: (group.frozen, group.tensors) for group in found} == {
        "trunk": (0, 5),
        "heads": (1, 4),
        "frozen": (2, 2),
    }


def test_what_the_groups_of_a_line_do_not_share_is_not_told(tmp_path: Path) -> None:
    networks = {"actor": nn.Linear(2, 2), "critic": nn.Linear(2, 1)}
    rules = [Rule("*", optimizer="SGD", lr=0.1, clip=clip_norm(1.0)), Rule("actor.bias", clip=clip_norm(0.1))]
    plan = Plan(rules, clip=clip_norm(9.0))
    actor, critic = header_of(tmp_path / "a", GroupedOptimizer(networks, plan), by="network").groups
    assert (actor.clip, critic.clip is None) == (None, False)
    layer = nn.Linear(2, 2)
    parts = [{"params": [p], "network": key} for p, key in zip(layer.parameters(), networks, strict=True)]
    (both,) = header_of(tmp_path / "b", torch.optim.SGD(parts, lr=0.1), by="layer", model=layer).groups
    assert (both.tensors, both.network) == (2, None)


@pytest.mark.parametrize(
    ("clip", "per"),
    [
        (clip_norm(1.0), "scope"),
        (clip_norm(1.0, per="network"), "network"),
        (clip_norm(1.0, per="module"), "module"),
        (clip_norm(1.0, per="parameter"), "parameter"),
        (clip_value(1.0), None),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_the_set_that_shares_a_norm_is_told(clip: Any, per: str | None, whole: bool, tmp_path: Path) -> None:
    rule = Rule("*", optimizer="SGD", lr=0.1, **({} if whole else {"clip": clip}))
    plan = Plan([rule], clip=clip if whole else None)
    (group,) = header_of(tmp_path, GroupedOptimizer(nn.Linear(2, 2), plan)).groups
    assert group.clip is not None
    assert group.clip.per == per
