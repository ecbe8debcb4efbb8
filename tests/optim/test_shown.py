"""What a log, a prompt and a notebook show."""

import logging

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise._wrappers import without_wrappers
from groupwise.balance import Balancer, CAGrad
from groupwise.schedules import cosine


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


PLAN = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-3)), Rule("1.*", label="norms", weight_decay=0.0)])


def test_each_group_is_logged_at_the_build_with_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="groupwise"):
        optimizer = GroupedOptimizer(net(), PLAN)
    assert caplog.messages == optimizer.resolution.lines()
    assert caplog.messages[1] == "norms: AdamW, 2 tensors, 8 parameters, lr cosine(1e-3), weight_decay 0, trains"


def test_nothing_is_logged_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    GroupedOptimizer(net(), PLAN)
    assert caplog.messages == []


def test_a_scheduler_shows_where_it_is() -> None:
    optimizer = GroupedOptimizer(net(), PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    optimizer.step()
    scheduler.step()
    assert repr(scheduler) == "PlanScheduler(update 1, total_steps=10, 2 scheduled lr)"


def test_a_result_shows_its_numbers_and_no_tensor() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    result = Balancer(CAGrad()).backward({"a": x.sum(), "<b>": (-x).sum() * 0.5})
    assert repr(result).startswith("BalanceResult(tasks=('a', '<b>'), loss=")
    assert "tensor" not in repr(result)
    assert result._repr_html_().startswith("<pre>task")
    assert "&lt;b&gt;" in result._repr_html_()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("module._orig_mod.encoder.weight", "encoder.weight"),
        ("encoder._checkpoint_wrapped_module.0._fsdp_wrapped_module.bias", "encoder.0.bias"),
        ("modules.weight", "modules.weight"),
    ],
)
def test_a_name_without_the_parts_that_wrappers_add(name: str, plain: str) -> None:
    assert without_wrappers(name) == plain
