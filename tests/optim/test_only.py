"""Views of one network among several: alternating training behind one optimizer."""

import contextlib
import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, clip_norm, until
from groupwise.errors import GroupwiseWarning, OptimizerError, ResolutionError
from groupwise.optim import only
from groupwise.plan import Timeline
from tests.optim.models import Net, backward, batches, train, weights

PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=1e-2, clip=clip_norm(0.1)),
        Rule("critic.*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
    ]
)


def networks() -> dict[str, nn.Module]:
    return {"g_a": Net(0), "g_b": Net(1), "critic": Net(2)}


def test_a_view_is_the_same_object_each_time_whatever_the_order_of_names() -> None:
    optimizer = GroupedOptimizer(networks(), PLAN)
    assert optimizer.only("g_a", "g_b") is optimizer.only("g_b", "g_a")
    assert optimizer.only("g_a") is not optimizer.only("g_b")


def test_a_view_steps_and_clears_its_networks_alone_as_its_own_optimizer_would() -> None:
    nets, twins = networks(), networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    twin = GroupedOptimizer(
        {"critic": twins["critic"]}, Plan([PLAN.rules[1], Rule("*", clip=clip_norm(0.1), label="base")])
    )
    for batch in batches(3):
        for net in (*nets.values(), twins["critic"]):
            backward(net, batch)
        optimizer.only("critic").step()
        twin.step()
    for name, p in weights(twins["critic"]).items():
        torch.testing.assert_close(weights(nets["critic"])[name], p)
    assert all(torch.equal(p, q) for p, q in zip(nets["g_a"].parameters(), Net(0).parameters(), strict=True))
    optimizer.only("critic").zero_grad()
    assert all(p.grad is None for p in nets["critic"].parameters())
    assert all(p.grad is not None for p in nets["g_a"].parameters())


def test_stepping_every_view_is_stepping_the_whole() -> None:
    nets = networks()
    twins = copy.deepcopy(nets)
    whole, parts = GroupedOptimizer(nets, PLAN), GroupedOptimizer(twins, PLAN)
    for batch in batches(3):
        for net in (*nets.values(), *twins.values()):
            backward(net, batch)
        whole.step()
        parts.only("g_a", "g_b").step()
        parts.only("critic").step()
    for key, net in nets.items():
        for name, p in weights(net).items():
            torch.testing.assert_close(weights(twins[key])[name], p, rtol=0, atol=0)


def test_as_a_context_it_switches_off_the_other_networks_gradients_and_back_on() -> None:
    nets = networks()
    nets["g_a"].embed.weight.requires_grad_(False)
    optimizer = GroupedOptimizer(nets, PLAN)
    with pytest.raises(KeyError, match="stop"), optimizer.only("critic"):
        assert not any(p.requires_grad for p in nets["g_b"].parameters())
        assert all(p.requires_grad for p in nets["critic"].parameters())
        raise KeyError("stop")
    assert all(p.requires_grad for p in nets["g_b"].parameters())
    assert not nets["g_a"].embed.weight.requires_grad


HANDS: dict[str, Callable[[nn.Module, bool], object]] = {
    "the module's method": lambda net, on: net.requires_grad_(on),
    "each tensor's method": lambda net, on: [p.requires_grad_(on) for p in net.parameters()],
    "each tensor's flag": lambda net, on: [setattr(p, "requires_grad", on) for p in net.parameters()],
}
hands = pytest.mark.parametrize("hand", HANDS.values(), ids=HANDS)


def flags(net: nn.Module) -> set[bool]:
    return {p.requires_grad for p in net.parameters()}


@hands
@pytest.mark.parametrize("raises", [False, True])
def test_what_is_frozen_by_hand_inside_of_the_block_stays_frozen(
    hand: Callable[[nn.Module, bool], object], raises: bool
) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    with contextlib.suppress(KeyError), optimizer.only("critic"):
        hand(nets["g_a"], False)
        if raises:
            raise KeyError
    assert (flags(nets["g_a"]), flags(nets["g_b"]), flags(nets["critic"])) == ({False}, {True}, {True})


@hands
def test_the_last_word_inside_of_the_block_stands(hand: Callable[[nn.Module, bool], object]) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    with optimizer.only("critic"):
        for on in (False, True):
            hand(nets["g_a"], on)
        assert flags(nets["g_a"]) == {True}
        for on in (True, False):
            hand(nets["g_b"], on)
        hand(nets["critic"], False)
    assert (flags(nets["g_a"]), flags(nets["g_b"]), flags(nets["critic"])) == ({True}, {False}, {False})


@hands
def test_blocks_within_blocks_undo_what_they_did_and_nothing_else(hand: Callable[[nn.Module, bool], object]) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    with optimizer.only("critic"):
        with optimizer.only("g_a"), optimizer.only("g_a"):
            assert [flags(net) for net in nets.values()] == [{False}, {False}, {False}]
            hand(nets["g_b"], False)
        assert [flags(net) for net in nets.values()] == [{False}, {False}, {True}]
        hand(nets["critic"], False)
    assert [flags(net) for net in nets.values()] == [{True}, {False}, {False}]


@pytest.mark.parametrize(("moment", "frozen"), [(until("1 steps"), True), (after("1 steps"), False)])
def test_what_the_plans_timeline_freezes_or_thaws_inside_of_the_block_stays_so(moment: Timeline, frozen: bool) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, Plan([*PLAN.rules, Rule("g_a.*", trainable=moment)]))
    scheduler = PlanScheduler(optimizer)
    optimizer.step()
    with optimizer.only("critic"):
        scheduler.step()
    assert (flags(nets["g_a"]), flags(nets["g_b"])) == ({not frozen}, {True})


def test_parameters_are_of_their_class_after_the_block_and_copies_of_them_within_it() -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    with optimizer.only("critic"):
        averaged = copy.deepcopy(nets["g_a"])
        loaded = pickle.loads(pickle.dumps(nets["g_a"]))
        assert all(isinstance(p, nn.Parameter) for p in nets["g_a"].parameters())
    for net in (averaged, loaded, *nets.values()):
        assert {type(p) for p in net.parameters()} == {nn.Parameter}
    assert averaged.requires_grad_().embed.weight.requires_grad


def test_a_tensor_that_is_no_parameter_is_switched_off_and_on_as_well() -> None:
    latent = torch.zeros(3, requires_grad=True)
    optimizer = GroupedOptimizer({"latent": latent, "critic": Net()}, Plan([Rule("*", optimizer="SGD", lr=0.1)]))
    with optimizer.only("critic"):
        assert not latent.requires_grad
    assert latent.requires_grad
    assert type(latent) is torch.Tensor


def test_a_block_that_cannot_begin_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    pause, paused = only.pause, list[torch.Tensor]()

    def failing(p: torch.Tensor) -> Callable[[], None]:
        if len(paused) == 3:
            raise MemoryError("the fourth")
        paused.append(p)
        return pause(p)

    monkeypatch.setattr(only, "pause", failing)
    with pytest.raises(MemoryError, match="the fourth"), optimizer.only("critic"):
        pass
    assert [flags(net) for net in nets.values()] == [{True}, {True}, {True}]


@pytest.mark.parametrize("place", ["closure", "pre hook", "post hook", "engine"])
def test_a_view_whose_step_raises_leaves_groups_gradients_and_modes_as_they_were(place: str) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    backward(nets["critic"], batches(1)[0])
    backward(nets["g_a"], batches(1)[0])
    groups, gradients = list(optimizer.param_groups), [p.grad for p in nets["g_a"].parameters()]

    def fail(*_: object) -> float:
        raise KeyError(place)

    handles = []
    if place == "pre hook":
        handles.append(optimizer.register_step_pre_hook(fail))
    if place == "post hook":
        handles.append(optimizer.register_step_post_hook(fail))
    if place == "engine":
        optimizer.only("critic").param_groups[0]["momentum"] = "much"
    with pytest.raises((KeyError, TypeError), match=rf"{place}|str"), optimizer.only("critic") as view:
        view.step(fail if place == "closure" else None)
    assert all(one is other for one, other in zip(optimizer.param_groups, groups, strict=True))
    assert all(p.grad is gradient for p, gradient in zip(nets["g_a"].parameters(), gradients, strict=True))
    assert [flags(net) for net in nets.values()] == [{True}, {True}, {True}]
    assert torch.is_grad_enabled()
    for handle in handles:
        handle.remove()


def test_a_group_that_is_added_during_a_views_step_stays() -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    groups, late = optimizer.param_groups, nn.Parameter(torch.ones(2))
    optimizer.register_step_pre_hook(lambda *_: optimizer.add_param_group({"params": [late], "name": "late"}))
    with pytest.warns(GroupwiseWarning, match="group 'late' .* stands outside the plan"):
        optimizer.only("critic").step()
    assert optimizer.param_groups is groups
    assert [group["name"] for group in groups].count("late") == 1
    assert {group["network"] for group in groups} == {"g_a", "g_b", "critic", ""}


def test_a_view_runs_a_closure_once() -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    calls = []

    def closure() -> float:
        calls.append(1)
        return backward(nets["critic"], batches(1)[0]).item()

    loss = optimizer.only("critic").step(closure)
    assert len(calls) == 1
    assert loss is not None


def test_hooks_of_the_owner_fire_for_a_view() -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    fired: list[object] = []
    optimizer.register_step_post_hook(lambda *args: fired.append(args[0]))
    train(nets["critic"], batches(2), optimizer.only("critic").step)
    assert fired == [optimizer, optimizer]


def test_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(OptimizerError, match=r"unknown network 'crtic'; did you mean 'critic'\? .*g_a"):
        GroupedOptimizer(networks(), PLAN).only("crtic")
    with pytest.raises(OptimizerError, match=r"there is: none.*the keys of a mapping"):
        GroupedOptimizer(Net(), Plan([Rule("*", optimizer="SGD", lr=0.1)])).only("net")


@pytest.mark.parametrize("poisoned", [False, True])
def test_each_view_has_a_slot_of_its_own_in_one_scaler(poisoned: bool) -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = {key: weights(net) for key, net in nets.items()}
    for key in ("g_a", "critic"):
        batch = batches(1)[0]
        scaler.scale(nn.functional.cross_entropy(nets[key](batch[0]), batch[1])).backward()
        if poisoned and key == "g_a":
            nets[key].head.bias.grad.fill_(float("nan"))
        scaler.unscale_(optimizer.only(key))
        scaler.step(optimizer.only(key))
    scaler.update()
    moved = {
        key for key, net in nets.items() if any(not torch.equal(p, before[key][n]) for n, p in weights(net).items())
    }
    assert moved == ({"critic"} if poisoned else {"g_a", "critic"})


@pytest.mark.parametrize("by", ["closure", "hook"])
def test_a_regroup_in_the_middle_of_a_views_step_is_of_the_whole(by: str) -> None:
    nets, twins = networks(), networks()
    optimizer, twin = GroupedOptimizer(nets, PLAN), GroupedOptimizer(twins, PLAN)
    first, second = batches(2)
    for own, running in ((nets, optimizer), (twins, twin)):
        for net in own.values():
            backward(net, first)
        running.step()
        backward(own["critic"], second)
    twin.regroup()
    twin.only("critic").step()
    if by == "closure":
        optimizer.only("critic").step(lambda: float(bool(optimizer.regroup())))
    else:
        handle = optimizer.register_step_pre_hook(lambda *_: optimizer.regroup() and None)
        optimizer.only("critic").step()
        handle.remove()
    assert [group["name"] for group in optimizer.param_groups] == [group["name"] for group in twin.param_groups]
    for key, own in twin.state_dict()["state"].items():
        torch.testing.assert_close(optimizer.state_dict()["state"][key], own, rtol=0, atol=0)
    for name, net in twins.items():
        torch.testing.assert_close(weights(nets[name]), weights(net), rtol=0, atol=0)


def test_a_checkpoint_taken_in_the_middle_of_a_views_step_is_of_the_whole() -> None:
    nets, taken = networks(), list[dict[str, object]]()
    optimizer = GroupedOptimizer(nets, PLAN)
    for net in nets.values():
        backward(net, batches(1)[0])
    optimizer.step()
    optimizer.register_step_post_hook(lambda *_: taken.append(optimizer.state_dict()))
    optimizer.only("critic").step()
    assert taken[0].keys() == optimizer.state_dict().keys()
    assert taken[0]["param_groups"] == optimizer.state_dict()["param_groups"]
    torch.testing.assert_close(taken[0]["state"], optimizer.state_dict()["state"], rtol=0, atol=0)


def test_a_failed_regroup_in_the_middle_of_a_views_step_changes_nothing() -> None:
    nets = networks()
    optimizer = GroupedOptimizer(nets, PLAN)
    for net in nets.values():
        backward(net, batches(1)[0])
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())

    def closure() -> float:
        optimizer.regroup(Plan([Rule("nowhere.*", optimizer="SGD", lr=1.0)]))
        return 0.0

    with pytest.raises(ResolutionError, match="nowhere"):
        optimizer.only("critic").step(closure)
    now = optimizer.state_dict()
    assert now["param_groups"] == before["param_groups"]
    torch.testing.assert_close(now["state"], before["state"], rtol=0, atol=0)
