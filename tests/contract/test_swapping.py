"""Sections h and k: parameters and state that are exchanged under the optimizer, for good or for a while."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim._stateless import swap_in_optimizer_params_and_state
from torch.utils import _pytree as pytree

from tests.contract.mixes import MIX, MIXES, MUON, Mix, assert_same, assert_unmoved, backward, steps, train, weights

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


@mixes
def test_parameters_swapped_by_position_are_stepped(mix: Mix) -> None:
    """Accelerate's FSDP2 path: placeholders first, then new tensors, group by group and place by place."""
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    places = {id(p): (group, i) for group in optimizer.param_groups for i, p in enumerate(group["params"])}
    names = {id(p): name for name, p in ours.named_parameters()}
    owners = {names[key]: place for key, place in places.items()}
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"]):
            group["params"][i] = torch.empty(1, dtype=p.dtype)
    for name, p in list(ours.named_parameters()):
        module, _, leaf = name.rpartition(".")
        fresh = nn.Parameter(p.detach().clone())
        setattr(ours.get_submodule(module), leaf, fresh)
        group, i = owners[name]
        group["params"][i] = fresh
    train(ours, range(4), optimizer.step)
    train(theirs, range(4), steps(separate))
    assert_same(ours, theirs)


def test_a_new_list_of_parameters_is_saved_and_loaded_by_name() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(p.detach().clone()) for p in group["params"]]
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    again = MIX.net()
    resumed = MIX.optimizer(again)
    resumed.load_state_dict(optimizer.state_dict())
    swapped = {
        name: p
        for group in optimizer.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
    }
    for name, p in again.named_parameters():
        torch.testing.assert_close(resumed.state[p], optimizer.state[swapped[name]], rtol=0, atol=0)


@mixes
def test_the_step_runs_on_parameters_and_state_swapped_in_for_a_while(mix: Mix) -> None:
    """`torch.optim._stateless`: other tensors and other state, and everything as before afterwards."""
    ours, theirs = mix.net(), mix.net()
    optimizer, whole = mix.optimizer(ours), mix.optimizer(theirs)
    train(ours, range(2), optimizer.step)
    train(theirs, range(2), whole.step)
    before, saved = weights(ours), copy.deepcopy(optimizer.state_dict())
    listed = [name for group in optimizer.param_groups for name in group["param_names"]]
    other = {name: before[name].clone().requires_grad_() for name in listed}
    backward(theirs, 2)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    whole.step()
    with swap_in_optimizer_params_and_state(optimizer, other, copy.deepcopy(saved)):
        for name, p in other.items():
            p.grad = gradients[name]
        optimizer.step()
    expected = weights(theirs)
    for name, p in other.items():
        torch.testing.assert_close(p.detach(), expected[name], rtol=0, atol=1e-6)
    assert_unmoved(ours, before)
    assert optimizer.state_dict()["param_groups"] == saved["param_groups"]
    torch.testing.assert_close(optimizer.state_dict()["state"], saved["state"], rtol=0, atol=0)


@pytest.mark.parametrize("mix", [MIX, MUON], ids=["sgd+adamw", "muon"])
def test_a_step_is_traced_on_tensors_without_data_and_runs_from_the_trace(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    train(net, range(2), optimizer.step)
    backward(net, 2)
    before = weights(net)
    listed = [name for group in optimizer.param_groups for name in group["param_names"]]
    gradients = {name: net.get_parameter(name).grad for name in listed}
    inputs = [{name: before[name].clone() for name in listed}, gradients, copy.deepcopy(optimizer.state_dict())]
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        empty = pytree.tree_map_only(torch.Tensor, fake.from_tensor, inputs)

    def step(params: dict[str, torch.Tensor], given: dict[str, torch.Tensor], saved: dict[str, object]) -> None:
        with swap_in_optimizer_params_and_state(optimizer, params, saved):
            for name, p in params.items():
                p.grad = given[name]
            optimizer.step()

    traced = make_fx(step)(*empty)
    assert_unmoved(net, before)
    traced(*inputs)
    optimizer.step()
    for name, p in inputs[0].items():
        torch.testing.assert_close(p, net.get_parameter(name).detach(), rtol=0, atol=0)
