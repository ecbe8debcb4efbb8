"""Section e: `torch.distributed.checkpoint.state_dict` reads and writes the optimizer by parameter name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, clip_norm
from groupwise.schedules import cosine
from tests.contract.mixes import BASE, MIX, MIXES, Mix, Net, assert_same, assert_unmoved, backward, train, weights

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
forms = pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])


def options(flatten: bool) -> StateDictOptions:
    return StateDictOptions(flatten_optimizer_state_dict=flatten)


def read(net: nn.Module, optimizer: GroupedOptimizer, flatten: bool = False) -> dict[str, Any]:
    return dict(get_optimizer_state_dict(net, optimizer, options=options(flatten)))


def write(net: nn.Module, optimizer: GroupedOptimizer, saved: dict[str, Any], flatten: bool = False) -> None:
    set_optimizer_state_dict(net, optimizer, saved, options=options(flatten))


@mixes
@forms
def test_reading_before_the_first_step_moves_no_weight(mix: Mix, flatten: bool) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    before = weights(net)
    rates = [group["lr"] for group in optimizer.param_groups]
    read(net, optimizer, flatten)
    assert_unmoved(net, before)
    assert [group["lr"] for group in optimizer.param_groups] == rates
    assert all(p.grad is None for p in net.parameters())


@mixes
@forms
@pytest.mark.parametrize("fresh", [True, False], ids=["into a fresh one", "into one that has stepped"])
def test_a_run_goes_on_from_what_was_read(mix: Mix, flatten: bool, fresh: bool) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, range(3), optimizer.step)
    saved = copy.deepcopy(read(net, optimizer, flatten))
    again = mix.net()
    resumed = mix.optimizer(again)
    train(again, range(0 if fresh else 2), resumed.step)
    write(again, resumed, saved, flatten)
    again.load_state_dict(net.state_dict())
    for one, step in ((net, optimizer.step), (again, resumed.step)):
        train(one, range(3, 7), step)
    assert_same(net, again)


@mixes
def test_state_is_keyed_by_the_names_of_the_model(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, [0], optimizer.step)
    saved = read(net, optimizer)
    names = {name for name, _ in net.named_parameters()}
    assert set(saved["state"]) == names
    assert {name for group in saved["param_groups"] for name in group["params"]} == names


@forms
def test_a_model_and_its_optimizer_are_saved_and_loaded_together(flatten: bool) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(3), optimizer.step)
    saved = copy.deepcopy(get_state_dict(net, optimizer, options=options(flatten)))
    again = MIX.net()
    resumed = MIX.optimizer(again)
    set_state_dict(again, resumed, model_state_dict=saved[0], optim_state_dict=saved[1], options=options(flatten))
    train(net, range(3, 5), optimizer.step)
    train(again, range(3, 5), resumed.step)
    assert_same(net, again)


@forms
def test_a_mapping_of_networks_is_saved_under_a_module_dict_of_the_same_names(flatten: bool) -> None:
    plan = Plan([BASE, Rule("right.*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0)])

    def made() -> tuple[nn.ModuleDict, GroupedOptimizer]:
        root = nn.ModuleDict({"left": Net(), "right": Net()})
        return root, GroupedOptimizer(dict(root.items()), plan)

    root, optimizer = made()
    for net in root.values():
        train(net, [0])
    optimizer.step()
    saved = copy.deepcopy(read(root, optimizer, flatten))
    again, resumed = made()
    write(again, resumed, saved, flatten)
    state = {name: resumed.state[p] for name, p in again.named_parameters()}
    for name, p in root.named_parameters():
        torch.testing.assert_close(state[name], optimizer.state[p], rtol=0, atol=0)


@forms
def test_a_run_whose_model_changed_is_read_and_set_into_one_that_was_built_so(flatten: bool) -> None:
    def changed(net: Net) -> Net:
        net.adapter = nn.Linear(2, 2)
        net.head = nn.Linear(6, 3)
        net.embed = nn.Embedding.from_pretrained(
            torch.cat([net.embed.weight.detach(), torch.zeros(2, 4)]), freeze=False
        )
        return net

    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    optimizer.regroup(model=changed(net))
    for p in net.adapter.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    train(net, range(2, 4), optimizer.step)
    saved = copy.deepcopy(read(net, optimizer, flatten))
    again = changed(MIX.net())
    resumed = MIX.optimizer(again)
    write(again, resumed, saved, flatten)
    again.load_state_dict(net.state_dict())
    assert str(resumed.load_report) == "every parameter found its state"
    for one, step in ((net, optimizer.step), (again, resumed.step)):
        train(one, range(4, 7), step)
    assert_same(net, again)


@forms
def test_edited_learning_rates_travel(flatten: bool) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, [0], optimizer.step)
    for group in optimizer.param_groups:
        group["lr"] *= 0.125
    saved = copy.deepcopy(read(net, optimizer, flatten))
    again = MIX.net()
    resumed = MIX.optimizer(again)
    write(again, resumed, saved, flatten)
    assert [group["lr"] for group in resumed.param_groups] == [1e-2 * 0.125, 0.1 * 0.125]


class RowAdam(torch.optim.SparseAdam):
    """SparseAdam by a name that does not say so."""


@pytest.mark.parametrize("cls", [torch.optim.SparseAdam, RowAdam])
def test_a_class_that_takes_sparse_gradients_alone_is_known_whatever_its_name(cls: type[torch.optim.Optimizer]) -> None:
    """Reading hands out dense zeros at lr 0, which such a class refuses; they are passed over, and left as they are."""
    table = nn.Embedding(9, 4, sparse=True)
    optimizer = GroupedOptimizer(table, Plan([Rule("*", optimizer=cls, lr=0.1)]))
    read = get_optimizer_state_dict(table, optimizer)
    assert read["param_groups"][0]["params"] == ["weight"]
    zeros = table.weight.grad = torch.zeros_like(table.weight)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert table.weight.grad is zeros
    table.weight.grad = torch.ones_like(table.weight)
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        optimizer.step()


def test_reading_clips_nothing_and_ticks_nothing() -> None:
    net = MIX.net()
    plan = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2), clip=clip_norm(0.1))], clip=clip_norm(1.0))
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    before = weights(net)
    read(net, optimizer)
    assert scheduler.last_epoch == 0
    assert scheduler.get_last_lr() == [1e-2]
    assert_unmoved(net, before)


@forms
def test_frozen_groups_are_left_out_of_state_and_stay_unmoved(flatten: bool) -> None:
    net = MIX.net()
    plan = Plan([*MIX.plan.rules, Rule("embed.*", trainable=False)])
    optimizer = GroupedOptimizer(net, plan)
    before = weights(net)
    read(net, optimizer, flatten)
    assert_unmoved(net, before)
    train(net, [0], optimizer.step)
    saved = copy.deepcopy(read(net, optimizer, flatten))
    again = MIX.net()
    resumed = GroupedOptimizer(again, plan)
    write(again, resumed, saved, flatten)
    again.load_state_dict(net.state_dict())
    train(net, range(1, 4), optimizer.step)
    train(again, range(1, 4), resumed.step)
    assert_same(net, again)
    assert torch.equal(net.embed.weight, before["embed.weight"])


@forms
def test_a_checkpoint_written_between_a_thaw_and_the_next_step_loads(flatten: bool) -> None:
    plan = Plan([BASE, Rule("hidden.*", trainable=after("4 steps"), lr=cosine(1e-3))])

    def made() -> tuple[Net, GroupedOptimizer, PlanScheduler]:
        net = Net()
        optimizer = GroupedOptimizer(net, plan)
        return net, optimizer, PlanScheduler(optimizer, total_steps=10)

    net, optimizer, scheduler = made()
    train(net, range(4), optimizer.step, scheduler.step)
    assert net.hidden.weight.requires_grad
    assert not optimizer.state.get(net.hidden.weight)
    saved = copy.deepcopy(read(net, optimizer, flatten))
    again, resumed, follower = made()
    follower.load_state_dict(scheduler.state_dict())
    write(again, resumed, saved, flatten)
    again.load_state_dict(net.state_dict())
    train(net, range(4, 8), optimizer.step, scheduler.step)
    train(again, range(4, 8), resumed.step, follower.step)
    assert_same(net, again)


def test_a_parameter_that_has_no_state_yet_has_none_after_the_load() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    backward(net, 0)
    net.head.bias.grad = None
    optimizer.step()
    saved = copy.deepcopy(read(net, optimizer))
    again = MIX.net()
    resumed = MIX.optimizer(again)
    write(again, resumed, saved)
    assert again.head.bias not in resumed.state
    torch.testing.assert_close(resumed.state[again.head.weight], optimizer.state[net.head.weight], rtol=0, atol=0)


@forms
def test_an_algorithm_without_state_beside_one_with_state_is_loaded(flatten: bool) -> None:
    plan = Plan([BASE, Rule("hidden.*", optimizer="SGD", lr=0.1, weight_decay=0.0)])
    net, again = MIX.net(), MIX.net()
    optimizer, resumed = GroupedOptimizer(net, plan), GroupedOptimizer(again, plan)
    train(net, range(3), optimizer.step)
    write(again, resumed, copy.deepcopy(read(net, optimizer, flatten)), flatten)
    again.load_state_dict(net.state_dict())
    train(net, range(3, 6), optimizer.step)
    train(again, range(3, 6), resumed.step)
    assert_same(net, again)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@forms
def test_a_checkpoint_goes_through_files(flatten: bool, tmp_path: Path) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(3), optimizer.step)
    dcp.save({"optimizer": read(net, optimizer, flatten)}, checkpoint_id=tmp_path, no_dist=True)
    again = MIX.net()
    resumed = MIX.optimizer(again)
    room = {"optimizer": read(again, resumed, flatten)}
    dcp.load(room, checkpoint_id=tmp_path, no_dist=True)
    write(again, resumed, room["optimizer"], flatten)
    again.load_state_dict(net.state_dict())
    train(net, range(3, 6), optimizer.step)
    train(again, range(3, 6), resumed.step)
    assert_same(net, again)


def frozen_first(frozen: bool) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(not frozen)
    return net


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:load_state_dict")
@forms
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "torch's own"])
def test_a_part_unfrozen_since_is_read_from_a_file_by_a_planner_that_loads_in_part(
    ours: bool, flatten: bool, tmp_path: Path
) -> None:
    """`StateDictOptions(strict=False)` is of the model's dict alone; it does not reach `dcp.load`."""

    def optimizer_of(net: nn.Module) -> Any:
        plan = Plan([Rule("*", optimizer="AdamW", lr=0.1)])
        return GroupedOptimizer(net, plan) if ours else torch.optim.AdamW(net.parameters(), lr=0.1)

    net = frozen_first(True)
    optimizer = optimizer_of(net)
    net(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    dcp.save({"optimizer": read(net, optimizer, flatten)}, checkpoint_id=tmp_path, no_dist=True)
    again = frozen_first(False)
    resumed = optimizer_of(again)
    loose = StateDictOptions(strict=False, flatten_optimizer_state_dict=flatten)
    room = {"optimizer": get_optimizer_state_dict(again, resumed, options=loose)}
    with pytest.raises(dcp.CheckpointException, match="Missing key"):
        dcp.load(room, checkpoint_id=tmp_path, no_dist=True)
    dcp.load(room, checkpoint_id=tmp_path, no_dist=True, planner=dcp.DefaultLoadPlanner(allow_partial_load=True))
    write(again, resumed, room["optimizer"], flatten)
    for name, p in again[1].named_parameters():
        held = optimizer.state[net[1].get_parameter(name)]
        torch.testing.assert_close(resumed.state[p], held, rtol=0, atol=0)
    assert all(not resumed.state[p]["exp_avg"].any() for p in again[0].parameters())


def test_reading_before_the_first_step_counts_a_step_under_adam_as_it_does_in_torch() -> None:
    net, theirs = MIX.net(), MIX.net()
    optimizer = MIX.optimizer(net)
    plain = torch.optim.AdamW(theirs.parameters())
    read(net, optimizer)
    get_optimizer_state_dict(theirs, plain)
    assert optimizer.state[net.head.weight]["step"] == plain.state[theirs.head.weight]["step"] == 1


def test_flattened_form_repeats_the_names_of_a_group_for_each_of_its_parameters() -> None:
    """A limit that the compatibility page states: n parameters in one group are n² strings."""
    net = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(30)])
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    saved = read(net, optimizer, flatten=True)
    strings = [value for key, value in saved.items() if key.endswith(".param_names")]
    assert sum(map(len, strings)) == 30 * 30
