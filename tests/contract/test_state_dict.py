"""Section b, checkpoints: torch's layout, data that a `weights_only` load takes, and what torch does around a load."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.errors import GroupwiseWarning, StateError
from groupwise.schedules import cosine
from tests.contract.mixes import ADAGRAD, HIDDEN, MIX, MIXES, Mix, assert_same, assert_unmoved, steps, train, weights

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def plain(x: object) -> bool:
    """Whether a checkpoint may hold `x`: what a `weights_only` load takes without being told of it."""
    if isinstance(x, dict):
        return all(map(plain, x)) and all(map(plain, x.values()))
    if isinstance(x, list | tuple):
        return all(map(plain, x))
    return type(x) in (bool, int, float, str, torch.Tensor) or x is None


@mixes
def test_its_keys_are_state_and_param_groups(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    assert list(optimizer.state_dict()) == ["state", "param_groups"]
    train(net, [0], optimizer.step)
    assert list(optimizer.state_dict()) == ["state", "param_groups"]


@mixes
def test_parameters_are_numbered_in_the_order_of_the_groups(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, [0], optimizer.step)
    saved = optimizer.state_dict()
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    assert ids == list(range(len(ids)))
    assert set(saved["state"]) <= set(ids)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    for i, state in saved["state"].items():
        assert state is optimizer.state[listed[i]]


@mixes
def test_it_holds_plain_data_only(mix: Mix) -> None:
    net = mix.net()
    rule = Rule("norm.*", lr=cosine(1e-2, warmup="5%"), clip=clip_norm(1.0), trainable=True)
    optimizer = GroupedOptimizer(net, Plan([*mix.plan.rules, rule]))
    OneCycleLR(optimizer, 0.1, total_steps=5, cycle_momentum=False)
    train(net, [0], optimizer.step)
    assert plain(optimizer.state_dict())


@mixes
def test_it_comes_back_equal_through_a_file_read_with_weights_only(mix: Mix, tmp_path: Path) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, range(3), optimizer.step)
    torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "checkpoint.pt")
    weights_saved, saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["param_groups"] == optimizer.state_dict()["param_groups"]
    torch.testing.assert_close(saved["state"], optimizer.state_dict()["state"], rtol=0, atol=0)
    again = mix.net()
    resumed = mix.optimizer(again)
    again.load_state_dict(weights_saved)
    resumed.load_state_dict(saved)
    train(net, range(3, 6), optimizer.step)
    train(again, range(3, 6), resumed.step)
    assert_unmoved(again, weights(net))


@mixes
def test_a_load_leaves_the_checkpoint_as_it_was_and_copies_its_groups(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, range(2), optimizer.step)
    saved = copy.deepcopy(optimizer.state_dict())
    given = copy.deepcopy(saved)
    optimizer.load_state_dict(given)
    assert given["param_groups"] == saved["param_groups"]
    torch.testing.assert_close(given["state"], saved["state"], rtol=0, atol=0)
    optimizer.param_groups[0]["lr"] = 9.0
    assert given["param_groups"] == saved["param_groups"]


def test_a_load_replaces_group_dicts_and_state_and_the_step_follows() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    held, before = optimizer.param_groups, list(optimizer.param_groups)
    for seed in range(4):
        train(ours, [seed], optimizer.step)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(theirs, [seed], steps(separate))
    assert optimizer.param_groups is held  # wrappers share the list
    assert not any(group is other for group, other in zip(held, before, strict=True))
    assert_same(ours, theirs)


def test_string_keys_of_state_reach_the_checkpoint_and_come_back() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    optimizer.state["test"] = 1
    train(net, [0], optimizer.step)
    saved = optimizer.state_dict()
    assert saved["state"]["test"] == 1
    again = MIX.optimizer(MIX.net())
    again.load_state_dict(saved)
    assert again.state["test"] == 1


def test_no_parameter_has_an_empty_state() -> None:
    plain_sgd = Mix(Plan([Rule("*", optimizer="AdamW", lr=0.1), Rule("head.*", optimizer="SGD", lr=0.1)]), [])
    for mix in (*MIXES.values(), plain_sgd):
        net = mix.net()
        optimizer = mix.optimizer(net)
        train(net, range(2), optimizer.step)
        assert all(len(state) > 0 for state in optimizer.state.values())


def test_a_checkpoint_without_flags_that_torch_has_since_added_still_loads() -> None:
    net = ADAGRAD.net()
    optimizer = ADAGRAD.optimizer(net)
    train(net, range(3), optimizer.step)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for flag in ("foreach", "differentiable", "maximize", "capturable", "fused", "decoupled_weight_decay"):
            group.pop(flag, None)
    optimizer.load_state_dict(saved)
    train(net, range(3), optimizer.step)


@mixes
def test_a_checkpoint_whose_steps_are_plain_numbers_still_loads(mix: Mix) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    for net, step, loadable in ((ours, optimizer.step, [optimizer]), (theirs, steps(separate), separate)):
        train(net, range(3), step)
        for one in loadable:
            saved = copy.deepcopy(one.state_dict())
            for state in saved["state"].values():
                if isinstance(state.get("step"), torch.Tensor):
                    state["step"] = state["step"].item()
            one.load_state_dict(saved)
        train(net, range(3, 6), step)
    assert_same(ours, theirs)


def test_state_is_cast_to_the_parameters_type_and_the_step_count_is_not() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    double = MIX.net(torch.float64)
    again = MIX.optimizer(double)
    again.load_state_dict(optimizer.state_dict())
    assert again.state[double.head.weight]["exp_avg"].dtype == torch.float64
    assert again.state[double.head.weight]["step"].dtype == torch.float32
    train(double, range(2), again.step)


def test_hooks_around_a_save_see_and_change_it() -> None:
    optimizer = MIX.optimizer(MIX.net())

    def before(opt: torch.optim.Optimizer) -> None:
        opt.state["test"] = 1

    def after(opt: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        return saved | {"seen": saved["state"].pop("test", None)}

    optimizer.register_state_dict_post_hook(after)
    assert optimizer.state_dict()["seen"] is None
    optimizer.register_state_dict_pre_hook(before)
    saved = optimizer.state_dict()
    assert saved["seen"] == 1
    assert "test" not in saved["state"]


def test_hooks_around_a_load_run_in_order_before_the_names_are_matched() -> None:
    optimizer = MIX.optimizer(MIX.net())
    saved = optimizer.state_dict()

    def set_lr(value: float) -> Any:
        def hook(opt: torch.optim.Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            changed = copy.deepcopy(given)
            changed["param_groups"][0]["lr"] = value
            return changed

        return hook

    optimizer.register_load_state_dict_pre_hook(set_lr(0.002))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.002
    optimizer.register_load_state_dict_pre_hook(set_lr(0.003), prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda opt: opt.state.update(done=True))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.002
    assert optimizer.state["done"]


def test_repeated_groups_are_written_alike() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, [0], optimizer.step)
    last = optimizer.state_dict()["param_groups"][-1]
    optimizer.param_groups.extend(optimizer.param_groups)
    assert optimizer.state_dict()["param_groups"][-1] == last


def test_what_no_load_could_take_is_not_saved() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, [0], optimizer.step)
    other = torch.nn.Parameter(torch.ones(3))
    optimizer.param_groups.append(
        {**optimizer.param_groups[0], "params": [other], "param_names": ["head.bias"], "name": "x"}
    )
    with pytest.raises(StateError, match=r"'head\.bias' is the name of two tensors, in group 'base' and in group 'x'"):
        optimizer.state_dict()
    optimizer.param_groups.pop()
    optimizer.state[other] = {"step": torch.tensor(1.0)}
    with pytest.raises(StateError, match=r"there is state of 1 tensors \(shapes \(3,\)\) that stand in no group"):
        optimizer.state_dict()
    del optimizer.state[other]
    optimizer.state[3] = "mine"
    with pytest.raises(StateError, match="has the keys 3, which a checkpoint uses for parameters"):
        optimizer.state_dict()
    del optimizer.state[3]
    optimizer.load_state_dict(optimizer.state_dict())


def test_groups_that_are_repeated_as_they_are_load_again() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, [0], optimizer.step)
    repeated = MIX.optimizer(net)
    repeated.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    repeated.param_groups.extend(repeated.param_groups)
    optimizer.load_state_dict(repeated.state_dict())
    assert str(optimizer.load_report) == "every parameter found its state"


def test_flat_shards_are_saved_and_loaded_by_their_places() -> None:
    """ZeRO-1 and 2 put one flat tensor where a group's parameters were, and save by the optimizer's `state_dict`."""

    def made() -> GroupedOptimizer:
        optimizer = MIX.optimizer(MIX.net())
        for group in optimizer.param_groups:
            group["params"] = [torch.nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))]
            group["params"][0].grad = torch.ones_like(group["params"][0])
        return optimizer

    optimizer, other = made(), made()
    optimizer.step()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert str(other.load_report) == "every parameter found its state"
    for one, two in zip(optimizer.param_groups, other.param_groups, strict=True):
        torch.testing.assert_close(optimizer.state[one["params"][0]], other.state[two["params"][0]], rtol=0, atol=0)


def test_a_load_that_is_refused_changes_nothing() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(StateError, match="not an optimizer's state_dict"):
        optimizer.load_state_dict({"weights": 1})
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)


def test_the_checkpoint_of_a_plain_torch_optimizer_loads_by_name() -> None:
    net, theirs = MIX.net(), MIX.net()
    plain_optimizer = torch.optim.AdamW(theirs.named_parameters(), lr=3e-3)
    train(theirs, range(3), plain_optimizer.step)
    plan = Plan([Rule("*", optimizer="AdamW", lr=3e-3), Rule("norm.*", weight_decay=0.0)])
    optimizer = GroupedOptimizer(net, plan)
    optimizer.load_state_dict(plain_optimizer.state_dict())
    moments = {name: plain_optimizer.state[p]["exp_avg"] for name, p in theirs.named_parameters()}
    for name, p in net.named_parameters():
        torch.testing.assert_close(optimizer.state[p]["exp_avg"], moments[name], rtol=0, atol=0)


def test_a_checkpoint_of_other_algorithms_restarts_what_changed_and_says_so() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    other = GroupedOptimizer(MIX.net(), Plan(MIX.plan.rules[:1]))
    with pytest.warns(GroupwiseWarning, match=r"2 restarted \(hidden.weight, hidden.bias\)"):
        other.load_state_dict(optimizer.state_dict())
    assert other.load_report is not None
    assert other.load_report.restarted == tuple(HIDDEN)


def test_a_torch_scheduler_resumes_where_it_was() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    scheduler = StepLR(optimizer, 1, gamma=0.5)
    train(net, range(3), optimizer.step, scheduler.step)
    again = MIX.optimizer(MIX.net())
    again.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in again.param_groups] == [group["lr"] for group in optimizer.param_groups]
    assert [group["initial_lr"] for group in again.param_groups] == [1e-2, 0.1]
