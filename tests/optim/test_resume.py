"""Resume by name: whose state and whose values stand after a load."""

import copy
import io

import pytest
import torch

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.errors import GroupwiseWarning, StateError
from groupwise.optim.plan_values import Prefer
from groupwise.schedules import cosine, linear
from tests.optim.models import Net, batches, train, weights

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
        (lambda s: [1], "a state_dict is a mapping, not list"),
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


def plan_with(*, lr: object = 1e-2, **more: object) -> Plan:
    return Plan([Rule("*", optimizer="AdamW", lr=lr, **more)])


@pytest.mark.parametrize(
    ("prefer", "told"),
    [
        ("unchanged", {"lr": 0.3, "weight_decay": 0.2, "eps": 1e-5}),
        ("checkpoint", {"lr": 5e-3, "weight_decay": 0.7, "eps": 1e-5}),
        ("plan", {"lr": 0.3, "weight_decay": 0.2, "eps": 1e-8}),
    ],
)
def test_either_side_can_be_forced(prefer: Prefer, told: dict[str, float]) -> None:
    net, optimizer = trained(plan_with())
    optimizer.param_groups[0] |= {"lr": 5e-3, "eps": 1e-5, "weight_decay": 0.7}
    resumed = GroupedOptimizer(net, plan_with(lr=cosine(0.3), weight_decay=0.2))
    report = resumed.resume(through_a_file(optimizer.state_dict()), prefer=prefer)
    assert {key: resumed.param_groups[0][key] for key in told} == told
    assert resumed.load_report is report
    assert all(torch.equal(momenta(net, resumed)[name], moment) for name, moment in momenta(net, optimizer).items())


def test_a_forced_plan_keeps_what_its_foreign_scheduler_counts_from() -> None:
    net, optimizer = trained(plan_with())
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    resumed = GroupedOptimizer(net, plan_with(lr=0.5))
    torch.optim.lr_scheduler.StepLR(resumed, 1)
    resumed.resume(optimizer.state_dict(), prefer="plan")
    assert (resumed.param_groups[0]["lr"], resumed.param_groups[0]["initial_lr"]) == (0.5, 0.5)


def test_a_forced_plan_keeps_the_progress_that_an_algorithm_holds_in_its_groups() -> None:
    schedule_free = "pytorch_optimizer:ScheduleFreeAdamW"
    plan = Plan([Rule("*", optimizer=schedule_free, lr=1e-2)])
    net = Net()
    optimizer = GroupedOptimizer(net, plan)
    optimizer.train()
    train(net, batches(3), optimizer.step)
    resumed = GroupedOptimizer(net, Plan([Rule("*", optimizer=schedule_free, lr=1e-3)]))
    resumed.resume(optimizer.state_dict(), prefer="plan")
    progress = {key: optimizer.param_groups[0][key] for key in ("weight_sum", "lr_max")}
    assert {key: resumed.param_groups[0][key] for key in progress} == progress
    assert resumed.param_groups[0]["lr"] == 1e-3


def test_a_checkpoints_values_cannot_be_forced_on_a_group_that_merges_them() -> None:
    net, optimizer = trained(Plan([ADAMW, Rule("head.*", lr=scale(0.5))]))
    resumed = GroupedOptimizer(net, Plan([ADAMW]))
    with pytest.raises(
        StateError,
        match=r"cannot stand in group 'base': lr was 0\.01 for 'embed\.weight', 0\.005 for 'head\.weight'\. Keep",
    ):
        resumed.resume(optimizer.state_dict(), prefer="checkpoint")
    resumed.resume(optimizer.state_dict())
    assert resumed.param_groups[0]["lr"] == 1e-2


def test_an_unknown_choice_of_values_is_an_error() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    with pytest.raises(StateError, match="unknown choice for prefer 'plans'; did you mean 'plan'"):
        optimizer.resume(optimizer.state_dict(), prefer="plans")  # type: ignore[arg-type]


def renamed(state: dict, names: dict[str, str]) -> dict:
    for group in state["param_groups"]:
        group["param_names"] = [names.get(name, name) for name in group["param_names"]]
    return state


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"head.bias": "head.weight"}, "ambiguous: the checkpoint names 'head.weight' twice"),
        (
            {"head.bias": "module.head.weight"},
            r"ambiguous: 'head\.weight' and 'module\.head\.weight' of the checkpoint are both 'head\.weight' here",
        ),
        (
            {"head.bias": "gone", "head.weight": "gone"},
            "ambiguous: the checkpoint names 'gone' twice",
        ),
    ],
)
def test_an_ambiguous_load_is_an_error_that_changes_nothing(names: dict[str, str], message: str) -> None:
    net, optimizer = trained(Plan([ADAMW]))
    before = momenta(net, optimizer)
    with pytest.raises(StateError, match=message):
        optimizer.load_state_dict(renamed(optimizer.state_dict(), names))
    assert all(torch.equal(momenta(net, optimizer)[name], moment) for name, moment in before.items())


def test_two_saved_parameters_that_are_tied_now_are_ambiguous() -> None:
    def made(tied: bool) -> torch.nn.ModuleDict:
        model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(4, 3), "head": torch.nn.Linear(3, 4, bias=False)})
        if tied:
            model["head"].weight = model["embed"].weight
        return model

    optimizer = GroupedOptimizer(made(tied=False), Plan([ADAMW]))
    with pytest.raises(
        StateError, match=r"'embed\.weight' and 'head\.weight' of the checkpoint are both 'embed\.weight'"
    ):
        GroupedOptimizer(made(tied=True), Plan([ADAMW])).load_state_dict(optimizer.state_dict())


def test_a_module_that_is_truly_called_module_is_no_wrapper() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.ModuleDict({"module": torch.nn.Linear(2, 2)})})
    model["a"].register_parameter("weight", torch.nn.Parameter(torch.ones(3)))
    optimizer = GroupedOptimizer(model, Plan([ADAMW]))
    GroupedOptimizer(model, Plan([ADAMW])).load_state_dict(optimizer.state_dict())


def test_state_of_no_parameter_in_any_group_is_an_error() -> None:
    _, optimizer = trained(Plan([ADAMW]))
    state = optimizer.state_dict()
    state["state"][99] = state["state"][0]
    with pytest.raises(StateError, match="ambiguous: the state under 99 is of no parameter in any group"):
        optimizer.load_state_dict(state)


def test_a_plain_checkpoint_by_position_of_the_same_count_in_another_order_is_refused() -> None:
    net, other = Net(), torch.nn.Sequential(*reversed(list(Net().children())))
    plain = torch.optim.AdamW(other.parameters(), lr=0.5)
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    plain.step()
    with pytest.raises(StateError, match=r"'embed\.weight' has shape \(20, 8\), but 'exp_avg' .* has \(4, 8\)"):
        GroupedOptimizer(net, Plan([ADAMW])).load_state_dict(plain.state_dict())


@pytest.mark.parametrize(("rows", "kind"), [(25, "resized"), (15, "reset")])
def test_a_table_with_another_number_of_rows_is_told_and_every_other_moment_is_kept(rows: int, kind: str) -> None:
    net, optimizer = trained(Plan([ADAMW]))
    before, saved = momenta(net, optimizer), through_a_file(optimizer.state_dict())
    net.embed = torch.nn.Embedding(rows, 8)
    resumed = GroupedOptimizer(net, Plan([ADAMW]))
    with pytest.warns(GroupwiseWarning, match=rf"1 {kind} \(embed\.weight\)"):
        report = resumed.resume(saved)
    assert getattr(report, kind) == ("embed.weight",)
    after, table = momenta(net, resumed), before.pop("embed.weight")
    assert all(torch.equal(after[name], moment) for name, moment in before.items())
    if kind == "resized":
        assert torch.equal(after["embed.weight"][:20], table)
        assert not after["embed.weight"][20:].any()
        assert resumed.state[net.embed.weight]["step"] == 3
    train(net, [(words % rows, classes) for words, classes in batches(1)], resumed.step)


def test_a_layer_of_another_width_starts_afresh_and_most_layers_are_another_model() -> None:
    net, optimizer = trained(Plan([ADAMW]))
    saved = optimizer.state_dict()
    net.head = torch.nn.Linear(9, 4)
    with pytest.warns(GroupwiseWarning, match=r"14 of 15 parameters found their state; 1 reset \(head\.weight\)"):
        GroupedOptimizer(net, Plan([ADAMW])).load_state_dict(saved)
    with pytest.raises(StateError, match=r"'embed\.weight' has shape \(20, 6\), but 'exp_avg' .* has \(20, 8\)"):
        GroupedOptimizer(Net(width=6), Plan([ADAMW])).load_state_dict(saved)


def test_a_state_that_the_checkpoint_has_lost_is_missed() -> None:
    net, optimizer = trained(Plan([ADAMW]))
    saved = through_a_file(optimizer.state_dict())
    names = saved["param_groups"][0]["param_names"]
    for name in ("embed.weight", "head.bias"):
        del saved["state"][names.index(name)]
    with pytest.warns(
        GroupwiseWarning, match=r"13 of 15 parameters found their state; 2 missing \(embed\.weight, head"
    ):
        report = GroupedOptimizer(net, Plan([ADAMW])).resume(saved)
    assert report.missing == ("embed.weight", "head.bias")
    assert len(report.found) == 13


def test_a_parameter_that_never_had_a_gradient_is_counted_and_not_missed() -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, Plan([ADAMW]))
    net.unused = torch.nn.Linear(2, 2)
    optimizer.regroup(model=net)
    train(net, batches(2), optimizer.step)
    report = GroupedOptimizer(net, Plan([ADAMW])).resume(through_a_file(optimizer.state_dict()))
    assert str(report) == "15 of 17 parameters found their state, 2 had none (unused.weight, unused.bias)"


def test_a_frozen_part_and_an_algorithm_without_state_are_counted_and_not_missed() -> None:
    rules = [ADAMW, Rule("backbone", trainable=False), Rule("head", optimizer="SGD", lr=0.1, weight_decay=0.0)]
    net, optimizer = trained(Plan(rules))
    saved = through_a_file(optimizer.state_dict())
    for i in list(saved["state"]):
        if not saved["state"][i]:
            del saved["state"][i]  # as some tools write it
    report = GroupedOptimizer(net, Plan(rules)).resume(saved)
    assert report.found == ("embed.weight",)
    assert (len(report.stateless), report.missing) == (14, ())


def test_a_checkpoint_from_before_the_first_step_holds_no_state_and_says_so() -> None:
    _, optimizer = trained(Plan([ADAMW]), steps=0)
    assert str(GroupedOptimizer(Net(), Plan([ADAMW])).resume(optimizer.state_dict())) == "no parameter has state yet"


def test_a_new_head_goes_on_at_the_rate_to_which_a_foreign_scheduler_had_brought_its_group() -> None:
    plan = Plan([ADAMW, Rule("head", lr=scale(2.0))])
    _, optimizer = trained(plan)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step(), scheduler.step()
    net = Net()
    net.head = torch.nn.Sequential(torch.nn.Linear(8, 4))
    with pytest.warns(GroupwiseWarning, match="2 new"):
        resumed = GroupedOptimizer(net, plan)
        resumed.load_state_dict(optimizer.state_dict())
    assert {group["name"]: group["lr"] for group in resumed.param_groups} == {"base": 5e-3, "head": 1e-2}


@pytest.mark.parametrize("optimizer", ["Adafactor", "pytorch_optimizer:Shampoo", "pytorch_optimizer:SM3"])
def test_factored_state_is_not_taken_for_another_parameters(optimizer: str) -> None:
    net, ours = trained(Plan([Rule("*", optimizer=optimizer, lr=1e-2)]), steps=2)
    resumed = GroupedOptimizer(net, Plan([Rule("*", optimizer=optimizer, lr=1e-2)]))
    resumed.load_state_dict(ours.state_dict())
    for group in ours.param_groups:
        for p in group["params"]:
            assert resumed.state[p].keys() == ours.state[p].keys()


@pytest.mark.parametrize("named", [True, False])
def test_a_plain_checkpoint_of_another_class_restarts_the_state(named: bool) -> None:
    net = Net()
    plain = torch.optim.SGD(net.named_parameters() if named else net.parameters(), lr=0.5, momentum=0.9)
    train(net, batches(2), plain.step)
    optimizer = GroupedOptimizer(net, Plan([ADAMW]))
    with pytest.warns(GroupwiseWarning, match="15 restarted"):
        optimizer.load_state_dict(plain.state_dict())
    assert optimizer.param_groups[0]["lr"] == 1e-2
    train(net, batches(1), optimizer.step)


@pytest.mark.parametrize(("theirs", "ours"), [("Adam", "AdamW"), ("AdamW", "Adam")])
def test_a_plain_checkpoint_hands_on_its_moments_and_not_its_class(theirs: str, ours: str) -> None:
    net = Net()
    plain = getattr(torch.optim, theirs)(net.parameters(), lr=0.5)
    train(net, batches(2), plain.step)
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer=ours, lr=1e-2)]))
    optimizer.load_state_dict(plain.state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is (ours == "AdamW")
    assert torch.equal(optimizer.state[net.head.weight]["exp_avg"], plain.state[net.head.weight]["exp_avg"])


def test_a_load_that_fails_in_a_users_hook_changes_nothing() -> None:
    net, optimizer = trained(Plan([ADAMW]))
    resumed = GroupedOptimizer(net, Plan([ADAMW]))
    resumed.register_load_state_dict_post_hook(lambda _: {}["missing"])
    state, groups = resumed.state, resumed.param_groups
    with pytest.raises(KeyError, match="missing"):
        resumed.load_state_dict(optimizer.state_dict())
    assert resumed.state is state
    assert resumed.param_groups is groups
    assert resumed.load_report is None
