"""Regrouping in mid-run: parameters move between groups, their state with them."""

import copy

import pytest
import torch

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.schedules import linear
from groupwise.select import magnitude
from tests.optim.models import Net, batches, train, weights

ADAMW = Rule("*", optimizer="AdamW", lr=1e-2)
SPLIT = Plan([ADAMW, Rule("backbone.*", lr=scale(0.5)), Rule("head.*", weight_decay=0.01, betas=(0.9, 0.999))])


def test_regrouping_under_a_plan_of_equal_numbers_changes_no_weight() -> None:
    same = Plan([ADAMW, Rule("backbone.*", lr=1e-2, eps=1e-8), Rule("head.*", weight_decay=0.01)])
    nets = Net(), Net()
    plain, regrouped = (GroupedOptimizer(net, Plan([ADAMW])) for net in nets)
    train(nets[0], batches(6), plain.step)
    train(nets[1], batches(3), regrouped.step)
    regrouped.regroup(same)
    train(nets[1], batches(6)[3:], regrouped.step)
    for name, p in weights(nets[0]).items():
        torch.testing.assert_close(weights(nets[1])[name], p, rtol=0, atol=0)
    assert len(regrouped.param_groups) > len(plain.param_groups)


def test_state_stays_on_its_own_parameter_when_groups_split_and_merge() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, SPLIT)
    train(net, batches(2), optimizer.step)
    before = {name: optimizer.state[p]["exp_avg"].clone() for name, p in net.named_parameters()}
    for plan in (Plan([ADAMW]), SPLIT, Plan([Rule("head.*", lr=scale(0.5)), ADAMW])):
        optimizer.regroup(plan)
        assert optimizer.plan == plan
        for name, p in net.named_parameters():
            assert torch.equal(optimizer.state[p]["exp_avg"], before[name])


def test_a_change_of_algorithm_starts_that_state_afresh_and_says_so() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([ADAMW]))
    train(net, batches(2), optimizer.step)
    changed = Plan([ADAMW, Rule("head.*", optimizer="SGD", lr=0.1, momentum=0.9)])
    with pytest.warns(GroupwiseWarning, match=r"starts afresh: .*2 restarted \(head.weight, head.bias\)"):
        optimizer.regroup(changed)
    assert net.head.weight not in optimizer.state
    assert "exp_avg" in optimizer.state[net.embed.weight]
    train(net, batches(1), optimizer.step)
    assert set(optimizer.state[net.head.weight]) == {"momentum_buffer"}


def test_a_rule_on_a_statistic_is_resolved_on_what_the_weights_are_now() -> None:
    net = Net()
    plan = Plan([ADAMW, Rule(magnitude(above=5.0), lr=scale(0.1), label="large")])
    optimizer = GroupedOptimizer(net, plan)
    assert [group["name"] for group in optimizer.param_groups] == ["base"]
    with torch.no_grad():
        net.head.weight.fill_(9.0)
    optimizer.regroup()
    by_name = {group["name"]: group["param_names"] for group in optimizer.param_groups}
    assert by_name["large"] == ["head.weight"]
    assert optimizer.load_report is not None
    assert optimizer.load_report.moved == ("head.weight",)


def test_a_value_set_by_hand_stays_unless_the_new_plan_declares_it_differently() -> None:
    optimizer = GroupedOptimizer(Net(), SPLIT)
    for group in optimizer.param_groups:
        group["lr"], group["eps"] = 0.5, 1e-3
    optimizer.regroup(Plan([*SPLIT.rules, Rule("head.*", lr=2e-2)]))
    by_name = {group["name"]: group for group in optimizer.param_groups}
    assert by_name["head"]["lr"] == 2e-2
    assert by_name["base"]["lr"] == 0.5
    assert all(group["eps"] == 1e-3 for group in optimizer.param_groups)


def test_the_plans_scheduler_goes_on_by_name_in_the_new_groups() -> None:
    net = Net()
    scheduled = Plan([Rule("*", optimizer="SGD", lr=linear(1.0, 0.0))])
    optimizer = GroupedOptimizer(net, scheduled)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    train(net, batches(4), optimizer.step, scheduler.step)
    optimizer.regroup(scheduled + [Rule("head.*", lr=scale(0.1))])
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == pytest.approx({"base": 0.6, "head": 0.06})
    train(net, batches(1), optimizer.step, scheduler.step)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == pytest.approx({"base": 0.5, "head": 0.05})


def test_a_torch_scheduler_that_counts_groups_by_position_forbids_it_and_nothing_changes() -> None:
    optimizer = GroupedOptimizer(Net(), Plan([ADAMW]))
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(OptimizerError, match="turn 1 groups into 3, but a torch scheduler is attached"):
        optimizer.regroup(SPLIT)
    assert optimizer.state_dict() == before
    assert optimizer.plan == Plan([ADAMW])


def test_groups_that_somebody_added_stay() -> None:
    optimizer = GroupedOptimizer(Net(), Plan([ADAMW]))
    extra = torch.nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [extra], "lr": 0.7})
    optimizer.regroup(SPLIT)
    added = next(group for group in optimizer.param_groups if group["params"][0] is extra)
    assert added["lr"] == 0.7
