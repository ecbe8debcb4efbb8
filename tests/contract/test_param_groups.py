"""Sections b, f and h: `param_groups` belongs to everybody; whoever edits, replaces or extends it is obeyed."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, clip_norm
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.schedules import cosine
from tests.contract.mixes import (
    ADAGRAD,
    EMBED,
    HIDDEN,
    MIX,
    MIXES,
    SPARSE,
    Mix,
    Net,
    assert_same,
    assert_unmoved,
    backward,
    steps,
    train,
    weights,
)

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def extra(seed: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 3)


def step_with(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """One step with random gradients on `module`, and none elsewhere."""
    optimizer.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    optimizer.step()


@mixes
def test_an_edit_in_place_persists_and_is_obeyed(mix: Mix) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    for group in [*optimizer.param_groups, *(g for other in separate for g in other.param_groups)]:
        group["lr"] *= 3
        if "weight_decay" in group and "momentum" in group:
            group["weight_decay"] = 0.2
    train(ours, range(4), optimizer.step)
    train(theirs, range(4), steps(separate))
    assert_same(ours, theirs)


def test_a_group_that_is_emptied_or_dropped_from_the_list_is_not_stepped() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    before = weights(net)
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["algorithm"] == "SGD"]
    train(net, range(2), optimizer.step)
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(HIDDEN)


def test_a_changed_algorithm_is_obeyed_when_the_plan_uses_it() -> None:
    net, theirs = MIX.net(), MIX.net()
    optimizer = MIX.optimizer(net)
    group = next(group for group in optimizer.param_groups if group["algorithm"] == "SGD")
    group.update(copy.copy(optimizer.param_groups[0]) | {"params": group["params"], "param_names": HIDDEN})
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    train(net, range(3), optimizer.step)
    train(theirs, range(3), plain.step)
    assert_same(net, theirs)


def test_an_algorithm_that_the_plan_does_not_use_is_refused_at_the_step() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    optimizer.param_groups[0]["algorithm"] = "Adamw"
    backward(net, 0)
    with pytest.raises(OptimizerError, match="unknown algorithm 'Adamw'; did you mean 'AdamW'"):
        optimizer.step()


@mixes
def test_one_group_at_a_time_equals_one_step(mix: Mix) -> None:
    """DeepSpeed's ZeRO assigns `param_groups = [group]` and steps, group after group."""
    ours, theirs = mix.net(), mix.net()
    optimizer, whole = mix.optimizer(ours), mix.optimizer(theirs)
    for seed in range(5):
        backward(ours, seed)
        groups = optimizer.param_groups
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups
        train(theirs, [seed], whole.step)
    assert_same(ours, theirs)


def test_one_group_at_a_time_ticks_no_schedule_and_warns_of_nothing() -> None:
    net = MIX.net()
    plan = Plan([*MIX.plan.rules, Rule("*", lr=cosine(1e-2))])
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=8)
    for seed in range(4):
        backward(net, seed)
        groups = optimizer.param_groups
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups
        assert scheduler.last_epoch == seed
        scheduler.step()


def test_a_clip_scope_cut_by_stepping_its_groups_apart_warns_once() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([*MIX.plan.rules, Rule("*", clip=clip_norm(1.0))]))
    backward(net, 0)
    groups = optimizer.param_groups
    optimizer.param_groups = groups[:1]
    with pytest.warns(GroupwiseWarning, match="this step updates only"):
        optimizer.step()
    optimizer.param_groups = groups[1:]
    optimizer.step()


def test_flat_shards_in_place_of_the_parameters_are_stepped() -> None:
    """ZeRO-1 and 2 put one flat tensor where a group's parameters were."""
    ours, theirs = MIX.net(), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    flats = []
    for group in optimizer.param_groups:
        flat = nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))
        flats.append((flat, group["params"]))
        group["params"] = [flat]
    for seed in range(4):
        backward(ours, seed)
        for flat, params in flats:
            flat.grad = torch.cat([p.grad.flatten() for p in params])
        optimizer.step()
        for flat, params in flats:
            for p, piece in zip(params, flat.detach().split([p.numel() for p in params]), strict=True):
                p.data.copy_(piece.view_as(p))
        train(theirs, [seed], steps(separate))
    assert_same(ours, theirs)


ADDED: dict[str, Any] = {
    "bare tensors": lambda m: {"params": list(m.parameters())},
    "named": lambda m: {"params": list(m.named_parameters())},
    "an iterator": lambda m: {"params": m.parameters()},
    "with an lr": lambda m: {"params": list(m.parameters()), "lr": 1e-2},
    "with its algorithm": lambda m: {"params": list(m.parameters()), "algorithm": "AdamW"},
}


@pytest.mark.parametrize("group", ADDED.values(), ids=ADDED)
def test_an_added_group_takes_the_algorithm_of_the_star_and_its_values(group: Any) -> None:
    net, ours, theirs = MIX.net(), extra(), extra()
    optimizer = MIX.optimizer(net)
    optimizer.add_param_group(group(ours))
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for seed in range(4):
        step_with(ours, optimizer, seed)
        step_with(theirs, plain, seed)
    assert_same(ours, theirs)


def test_an_added_group_with_another_algorithm_of_the_plan_takes_that_ones_values() -> None:
    net, ours, theirs = MIX.net(), extra(), extra()
    optimizer = MIX.optimizer(net)
    optimizer.add_param_group({"params": ours.parameters(), "algorithm": "SGD", "lr": 0.2})
    plain = torch.optim.SGD(theirs.parameters(), lr=0.2, momentum=0.9)
    for seed in range(4):
        step_with(ours, optimizer, seed)
        step_with(theirs, plain, seed)
    assert_same(ours, theirs)


def test_a_lone_tensor_may_be_added() -> None:
    optimizer = MIX.optimizer(MIX.net())
    optimizer.add_param_group({"params": extra().weight})
    assert optimizer.param_groups[-1]["param_names"] == ["added0.0"]


def test_added_groups_are_named_apart_and_keep_a_name_they_bring() -> None:
    optimizer = MIX.optimizer(MIX.net())
    for i in range(2):
        optimizer.add_param_group({"params": extra(i).parameters()})
    optimizer.add_param_group({"params": extra(9).parameters(), "name": "adapter"})
    names = [group["name"] for group in optimizer.param_groups]
    assert names[-3:] == ["added0", "added1", "adapter"]
    assert len(set(names)) == len(names)


def test_lightnings_finetuning_callback_may_add_its_thawed_parameters() -> None:
    """`BaseFinetuning.unfreeze_and_add_param_group` adds {"params", "lr"}, lr divided by ten."""
    net, thawed = MIX.net(), extra()
    optimizer = MIX.optimizer(net)
    optimizer.add_param_group({"params": list(thawed.parameters()), "lr": optimizer.param_groups[0]["lr"] / 10})
    assert optimizer.param_groups[-1]["lr"] == 1e-3
    assert set(optimizer.param_groups[-1]) == set(optimizer.param_groups[0])


def test_an_unknown_algorithm_is_refused_with_the_nearest() -> None:
    optimizer = MIX.optimizer(MIX.net())
    before = len(optimizer.param_groups)
    with pytest.raises(OptimizerError, match="unknown algorithm 'Sgd'; did you mean 'SGD'"):
        optimizer.add_param_group({"params": extra().parameters(), "algorithm": "Sgd"})
    assert len(optimizer.param_groups) == before


def test_a_parameter_that_is_already_there_is_refused() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        optimizer.add_param_group({"params": [net.head.weight]})
    assert len(optimizer.param_groups) == 2


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no dict": ([], TypeError, "param_group must be a dict"),
    "a set": ({"params": {torch.zeros(1, requires_grad=True)}}, TypeError, "ordered collections"),
    "no tensor": ({"params": ["weight"]}, TypeError, "can only optimize Tensors"),
    "no leaf": ({"params": [torch.zeros(1, requires_grad=True) * 2]}, ValueError, "non-leaf"),
}


@pytest.mark.parametrize(("group", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_torch_refuses_to_add_is_refused_alike(group: Any, error: type[Exception], words: str) -> None:
    optimizer = MIX.optimizer(MIX.net())
    with pytest.raises(error, match=words):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 2


def test_neither_the_name_of_a_planned_group_nor_that_of_an_added_one_is_given_again() -> None:
    optimizer = GroupedOptimizer(MIX.net(), Plan([Rule("*", optimizer="SGD", lr=cosine(0.1), clip=clip_norm(1.0))]))
    with pytest.raises(OptimizerError, match="there is a group 'base' already, the plan's, whose schedule and clip"):
        optimizer.add_param_group({"params": extra().parameters(), "name": "base", "lr": 0.5})
    optimizer = MIX.optimizer(MIX.net())
    optimizer.add_param_group({"params": extra().parameters(), "name": "adapter"})
    with pytest.raises(OptimizerError, match="there is a group 'adapter' already, an added one"):
        optimizer.add_param_group({"params": extra().parameters(), "name": "adapter"})
    assert len(optimizer.param_groups) == 3


@pytest.mark.parametrize("as_tuples", [True, False])
def test_a_name_of_another_parameter_is_refused_with_the_way_out(as_tuples: bool) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    named = list(nn.Linear(6, 5).named_parameters(prefix="head"))
    group = {"params": named} if as_tuples else {"params": [p for _, p in named], "param_names": [n for n, _ in named]}
    with pytest.raises(
        OptimizerError, match=r"'head\.weight' is held already, and it is another tensor.*regroup\(model=mo"
    ):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("named", [True, False])
def test_a_replaced_head_that_is_added_takes_the_names_over_and_is_saved_loaded_and_regrouped_as_one(
    named: bool,
) -> None:
    net = MIX.net()
    plan = MIX.plan + [Rule("head", lr=0.3)]
    optimizer = GroupedOptimizer(net, plan)
    train(net, [0], optimizer.step)
    net.head = nn.Linear(6, 3)
    params = list(net.head.named_parameters(prefix="head")) if named else list(net.head.parameters())
    with pytest.warns(GroupwiseWarning) as told:
        optimizer.add_param_group({"params": params})
    assert [str(each.message).split(":")[0].split(" (")[0] for each in told] == [
        "group 'added0'", "the model has changed since the plan was resolved",
    ]  # fmt: skip
    train(net, range(2), optimizer.step)
    other = copy.deepcopy(net)
    fresh = GroupedOptimizer(other, plan)
    with pytest.warns(GroupwiseWarning, match=r"2 lost \(head\.weight \(replaced\), head\.bias \(replaced\)\)"):
        fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(net.head.parameters(), other.head.parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[p], fresh.state[q], rtol=0, atol=0)
    optimizer.regroup()
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(id(p) for p in net.parameters())
    assert next(group["lr"] for group in optimizer.param_groups if group["name"] == "head") == 0.3


def test_one_name_for_two_tensors_of_a_group_is_refused() -> None:
    optimizer = MIX.optimizer(MIX.net())
    with pytest.raises(OptimizerError, match="a parameter 'a' is held already"):
        optimizer.add_param_group({"params": [("a", extra().weight), ("a", extra().bias)]})


def test_bare_tensors_of_the_model_go_by_the_models_names() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(
        net, Plan([Rule("hidden", optimizer="SGD", lr=0.1), Rule(["embed", "head", "norm"], trainable=False)])
    )
    net.head.requires_grad_(True)
    with pytest.warns(GroupwiseWarning, match=r"group 'added0' \(head\.weight, head\.bias\) stands outside the plan"):
        optimizer.add_param_group({"params": net.head.parameters()})
    assert optimizer.param_groups[-1]["param_names"] == ["head.weight", "head.bias"]
    optimizer.regroup()  # the plan freezes them, the added group trains them
    assert optimizer.param_groups[-1]["param_names"] == ["head.weight", "head.bias"]
    assert all(p.requires_grad for p in net.head.parameters())


def test_what_the_plan_left_frozen_and_somebody_trains_in_a_group_of_their_own_stays_there() -> None:
    net = MIX.net()
    net.embed.requires_grad_(False)
    optimizer = GroupedOptimizer(net, Plan([Rule(["hidden", "norm", "head"], optimizer="SGD", lr=0.1)]))
    net.embed.requires_grad_(True)
    with pytest.warns(GroupwiseWarning, match="stands outside the plan"):
        optimizer.add_param_group({"params": net.embed.parameters(), "lr": 0.5})
    optimizer.regroup()
    assert optimizer.param_groups[-1]["lr"] == 0.5
    assert optimizer.param_groups[-1]["params"][0] is net.embed.weight
    assert net.embed.weight.requires_grad


PLANS_THAT_REACH_NO_FURTHER = {
    "a schedule": (Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]), r"its lr stays 0\.5"),
    "a clip": (
        Plan([Rule("*", optimizer="SGD", lr=0.1, clip=clip_norm(1.0))]),
        "no schedule, clip or freezing of a rule",
    ),
    "a timeline": (Plan([Rule("*", optimizer="SGD", lr=0.1, trainable=after("3 steps"))]), "stands outside the plan"),
}


@pytest.mark.parametrize(
    ("plan", "words"), PLANS_THAT_REACH_NO_FURTHER.values(), ids=PLANS_THAT_REACH_NO_FURTHER.keys()
)
def test_a_group_that_stands_outside_the_plan_says_what_that_means(plan: Plan, words: str) -> None:
    net, more = MIX.net(), extra()
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    with pytest.warns(GroupwiseWarning, match=words):
        optimizer.add_param_group({"params": more.parameters(), "lr": 0.5})
    step_with(more, optimizer, 0)
    scheduler.step()
    assert optimizer.param_groups[-1]["lr"] == 0.5


def test_a_regroup_takes_what_was_added_under_the_plan_once_and_leaves_the_rest() -> None:
    net, others = MIX.net(), extra()
    optimizer = MIX.optimizer(net)
    net.adapter = nn.Linear(2, 2)
    own = list(net.adapter.parameters())
    optimizer.add_param_group({"params": [*own, *others.parameters()], "lr": 0.7})
    for p in [*own, *others.parameters()]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    moments = [optimizer.state[p]["exp_avg"].clone() for p in own]
    optimizer.regroup(model=net)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(net.parameters())) + 2
    assert [id(p) for p in optimizer.param_groups[-1]["params"]] == [id(p) for p in others.parameters()]
    assert optimizer.param_groups[-1]["lr"] == 0.7
    assert all(torch.equal(optimizer.state[p]["exp_avg"], moment) for p, moment in zip(own, moments, strict=True))


def test_an_added_group_whose_name_a_new_plan_takes_gets_another_and_a_warning_says_so() -> None:
    net, more = MIX.net(), extra()
    optimizer = MIX.optimizer(net)
    optimizer.add_param_group({"params": more.parameters(), "name": "top", "lr": 0.5})
    with pytest.warns(GroupwiseWarning, match="the one of that name that was added is 'top/added' now"):
        optimizer.regroup(MIX.plan + [Rule("head", label="top", lr=0.3)])
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert (rates["top"], rates["top/added"]) == (0.3, 0.5)


def test_a_head_whose_old_group_was_dropped_by_hand_comes_under_the_plan_at_the_next_regroup() -> None:
    net = MIX.net()
    plan = MIX.plan + [Rule("head", lr=0.3)]
    optimizer = GroupedOptimizer(net, plan)
    net.head = nn.Linear(6, 5)
    optimizer.param_groups = [group for group in optimizer.param_groups if group["name"] != "head"]
    with pytest.warns(GroupwiseWarning, match="stands outside the plan"):
        optimizer.add_param_group({"params": list(net.head.named_parameters(prefix="head"))})
    optimizer.regroup()
    held = {group["name"]: group["params"] for group in optimizer.param_groups}
    assert [id(p) for p in held["head"]] == [id(p) for p in net.head.parameters()]
    assert "added0" not in held


def test_a_tensor_that_somebody_put_into_two_groups_is_refused_before_anything_moves() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    before = weights(net)
    optimizer.param_groups.append({**optimizer.param_groups[0], "name": "again"})
    backward(net, 2)
    with pytest.raises(
        OptimizerError, match=r"of group 'base', .* of group 'again' are one tensor, so a step would move"
    ):
        optimizer.step()
    assert_unmoved(net, before)
    optimizer.param_groups.pop()
    optimizer.step()
    with pytest.raises(AssertionError, match="weight"):
        assert_unmoved(net, before)
    optimizer.param_groups = [*optimizer.param_groups, optimizer.param_groups[0]]
    with pytest.raises(OptimizerError, match="are one tensor"):
        optimizer.step()


def test_an_added_group_is_saved_and_comes_back() -> None:
    def made() -> tuple[nn.Linear, GroupedOptimizer]:
        more = extra()
        optimizer = ADAGRAD.optimizer(ADAGRAD.net())
        optimizer.add_param_group({"params": more.parameters(), "algorithm": "Adagrad"})
        return more, optimizer

    more, optimizer = made()
    for seed in range(3):
        step_with(more, optimizer, seed)
    again, resumed = made()
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.load_state_dict(more.state_dict())
    for seed in range(3, 5):
        step_with(more, optimizer, seed)
        step_with(again, resumed, seed)
    assert_same(again, more)


def test_a_sparse_algorithm_takes_an_added_table() -> None:
    optimizer = SPARSE.optimizer(SPARSE.net())
    table = nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer.add_param_group({"params": [table.weight], "algorithm": "SparseAdam"})
    table(torch.tensor([1, 3])).sum().backward()
    optimizer.step()
    assert (table.weight != before).any(1).tolist() == [False, True, False, True, False]


def test_groups_cannot_be_added_to_a_view() -> None:
    optimizer = GroupedOptimizer({"left": Net(), "right": Net()}, MIX_BOTH)
    view = optimizer.only("left")
    with pytest.raises(AttributeError, match="add_param_group"):
        view.add_param_group({"params": extra().parameters()})  # type: ignore[attr-defined]


MIX_BOTH = Plan([Rule("*", optimizer="AdamW", lr=1e-2), Rule([f"*.{EMBED[0]}"], optimizer="SGD", lr=0.1)])


def test_the_headline_group_comes_first() -> None:
    """HF's Trainer logs `param_groups[0]["lr"]`."""
    for mix in MIXES.values():
        assert mix.optimizer(mix.net()).param_groups[0]["lr"] == 1e-2


def test_no_group_is_touched_when_everything_is_frozen_for_now() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([*MIX.plan.rules, Rule("*", trainable=False)]))
    before = weights(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert_unmoved(net, before)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.filterwarnings("error")
def test_an_added_group_whose_warning_is_an_error_is_not_added() -> None:
    optimizer = GroupedOptimizer(MIX.net(), Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    before = list(optimizer.param_groups)
    with pytest.raises(GroupwiseWarning, match="stands outside the plan"):
        optimizer.add_param_group({"params": extra().parameters()})
    assert optimizer.param_groups == before


def test_an_algorithm_under_another_key_is_refused_with_the_key_that_counts() -> None:
    optimizer = MIX.optimizer(MIX.net())
    with pytest.raises(OptimizerError, match="under 'algorithm', as 'algorithm': 'SGD'"):
        optimizer.add_param_group({"params": extra().parameters(), "lr": 0.1, "optimizer": "SGD"})
