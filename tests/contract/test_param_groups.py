"""Sections b, f and h: `param_groups` belongs to everybody; whoever edits, replaces or extends it is obeyed."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm
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
