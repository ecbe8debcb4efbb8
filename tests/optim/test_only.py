"""Views of one network among several: alternating training behind one optimizer."""

import copy

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.errors import OptimizerError
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
    with pytest.raises(OptimizerError, match="there is: none"):
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
