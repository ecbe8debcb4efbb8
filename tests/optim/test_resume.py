"""Resume by name: whose state and whose values stand after a load."""

import copy
import io

import pytest
import torch
from tests.optim.models import Net, batches, train, weights

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.errors import GroupwiseWarning, StateError
from groupwise.schedules import cosine, linear

ADAMW = Rule("*", optimizer="AdamW", lr=1e-2)
MIX = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=linear(0.0, 0.1), clip=clip_norm(1.0)),
        Rule("backbone.*", lr=scale(0.1)),
        Rule("embed.*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
    ]
)


def through_a_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def trained(plan: Plan, steps: int = 3) -> tuple[Net, GroupedOptimizer]:
    net = Net()
    optimizer = GroupedOptimizer(net, plan)
    train(net, batches(steps), optimizer.step)
    return net, optimizer


def momenta(net: Net, optimizer: GroupedOptimizer) -> dict[str, torch.Tensor]:
    return {
        name: optimizer.state[p]["exp_avg"].clone()
        for name, p in net.named_parameters()
        if "exp_avg" in optimizer.state[p]
    }


def test_a_run_that_stops_goes_on_as_if_it_had_not() -> None:
    straight, stopped = Net(), Net()
    one = GroupedOptimizer(straight, MIX)
    ticks = PlanScheduler(one, total_steps=8)
    train(straight, batches(8), one.step, ticks.step)
    two = GroupedOptimizer(stopped, MIX)
    schedule = PlanScheduler(two, total_steps=8)
    train(stopped, batches(8)[:3], two.step, schedule.step)
    saved = through_a_file(
        {"net": stopped.state_dict(), "optimizer": two.state_dict(), "scheduler": schedule.state_dict()}
    )
    resumed = Net(seed=5)
    resumed.load_state_dict(saved["net"])
    three = GroupedOptimizer(resumed, MIX)
    again = PlanScheduler(three, total_steps=8)
    three.load_state_dict(saved["optimizer"])
    again.load_state_dict(saved["scheduler"])
    train(resumed, batches(8)[3:], three.step, again.step)
    for name, p in weights(straight).items():
        assert torch.equal(weights(resumed)[name], p), name


@pytest.mark.parametrize(
    "plan",
    [
        Plan([ADAMW, Rule("backbone.*", lr=scale(0.5))]),
        Plan([ADAMW, Rule("*.weight", weight_decay=0.3), Rule("head.*", lr=scale(2.0), label="top")]),
        Plan([Rule("head.*", optimizer="AdamW", lr=1e-2), Rule(["embed", "backbone"], optimizer="AdamW", lr=1e-3)]),
    ],
    ids=["split", "renamed", "other rules"],
)
def test_every_moment_follows_its_parameter_into_whatever_group_it_is_in(plan: Plan) -> None:
    net, optimizer = trained(Plan([ADAMW]))
    resumed = GroupedOptimizer(net, plan)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    for name, moment in momenta(net, optimizer).items():
        assert torch.equal(momenta(net, resumed)[name], moment)
    assert resumed.load_report is not None
    assert resumed.load_report.moved


def test_the_checkpoints_values_stand_where_the_plan_is_the_same() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step(), scheduler.step()
    resumed = GroupedOptimizer(Net(), Plan([ADAMW]))
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0]["lr"] == 5e-3
    assert resumed.param_groups[0]["initial_lr"] == 1e-2


def test_an_edited_plan_is_obeyed_and_only_in_what_was_edited() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    optimizer.param_groups[0] |= {"lr": 5e-3, "eps": 1e-5, "weight_decay": 0.7}
    resumed = GroupedOptimizer(Net(), Plan([Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.2)]))
    resumed.load_state_dict(optimizer.state_dict())
    group = resumed.param_groups[0]
    assert (group["lr"], group["eps"], group["weight_decay"]) == (5e-3, 1e-5, 0.2)


def test_what_the_plan_schedules_is_the_plans() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    resumed = GroupedOptimizer(Net(), Plan([Rule("*", optimizer="AdamW", lr=cosine(0.3))]))
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0]["lr"] == 0.3


def test_name_algorithm_clip_and_freezing_are_always_the_plans() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    saved = optimizer.state_dict()
    resumed = GroupedOptimizer(Net(), Plan([Rule("*", label="mine", optimizer="AdamW", lr=1e-2, trainable=False)]))
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["name"] == "mine"
    assert resumed.param_groups[0]["frozen"] is True


def test_a_change_of_algorithm_restarts_that_state_and_warns() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    net = Net()
    resumed = GroupedOptimizer(net, Plan([ADAMW, Rule("head.*", optimizer="SGD", lr=0.5, momentum=0.9)]))
    with pytest.warns(GroupwiseWarning, match=r"2 restarted \(head.weight, head.bias\)"):
        resumed.load_state_dict(optimizer.state_dict())
    assert net.head.weight not in resumed.state
    assert resumed.param_groups[-1]["lr"] == 0.5


def test_parameters_added_and_gone_are_reported() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    smaller = torch.nn.ModuleDict({"head": Net().head, "extra": torch.nn.Linear(2, 2)})
    resumed = GroupedOptimizer(smaller, Plan([ADAMW]))
    with pytest.warns(GroupwiseWarning, match=r"2 new \(extra.weight, extra.bias\); 13 lost"):
        resumed.load_state_dict(optimizer.state_dict())
    assert "exp_avg" in resumed.state[smaller["head"].weight]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "module._orig_mod."])
def test_a_checkpoint_of_the_wrapped_module_is_seen_through(prefix: str) -> None:
    net, optimizer = trained(Plan([ADAMW]))
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["param_names"] = [prefix + name for name in group["param_names"]]
    resumed = GroupedOptimizer(net, Plan([ADAMW]))
    resumed.load_state_dict(saved)
    assert momenta(net, resumed).keys() == momenta(net, optimizer).keys()


@pytest.mark.parametrize("named", [True, False])
def test_a_plain_torch_checkpoint_loads_by_name_or_as_one_group_by_position(named: bool) -> None:
    net = Net()
    plain = torch.optim.AdamW(net.named_parameters() if named else net.parameters(), lr=0.5)
    train(net, batches(2), plain.step)
    optimizer = GroupedOptimizer(net, Plan([ADAMW, Rule("head.*", weight_decay=0.3)]))
    optimizer.load_state_dict(through_a_file(plain.state_dict()))
    for p in net.parameters():
        assert torch.equal(optimizer.state[p]["exp_avg"], plain.state[p]["exp_avg"])
    assert all(group["lr"] == 0.5 for group in optimizer.param_groups)


def with_wrong_shape(state: dict) -> dict:
    state["param_groups"][0]["param_names"][0] = "head.weight"
    state["param_groups"][0]["param_names"][13] = "embed.weight"
    return state


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda s: {"state": {}}, "not an optimizer's state_dict: it needs 'state' and 'param_groups', this has state"),
        (lambda s: {"model": 1}, "this has model"),
        (lambda s: [1], "this has list"),
        (lambda s: {"state": {}, "param_groups": [{"lr": 1}]}, "not an optimizer's state_dict"),
        (
            lambda s: {**s, "param_groups": [{**s["param_groups"][0], "param_names": [f"x{i}" for i in range(15)]}]},
            r"no parameter of the checkpoint is known here: it has x0, .* this optimizer has embed.weight",
        ),
        (
            lambda s: {"state": {}, "param_groups": [{"params": [0, 1, 2]}]},
            "no parameter names, 1 groups and 3 parameters",
        ),
        (with_wrong_shape, "this is the state of another parameter"),
    ],
)
def test_a_load_that_fails_says_why_and_changes_nothing(broken: object, message: str) -> None:
    net, optimizer = trained(Plan([ADAMW]))
    before, moments = copy.deepcopy(optimizer.param_groups), momenta(net, optimizer)
    state = broken(copy.deepcopy(optimizer.state_dict()))  # type: ignore[operator]
    with pytest.raises(StateError, match=message):
        optimizer.load_state_dict(state)
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == [
        {k: v for k, v in g.items() if k != "params"} for g in before
    ]
    assert all(torch.equal(momenta(net, optimizer)[name], moment) for name, moment in moments.items())


def test_the_users_own_hooks_see_the_checkpoint_as_it_was_saved() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    seen: list[object] = []
    resumed = GroupedOptimizer(Net(), Plan([ADAMW, Rule("head.*", lr=scale(0.5))]))
    resumed.register_load_state_dict_pre_hook(lambda _, state: seen.append(len(state["param_groups"])))
    resumed.load_state_dict(optimizer.state_dict())
    assert seen == [1]
