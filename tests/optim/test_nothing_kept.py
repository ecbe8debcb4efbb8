"""Caches forget: what nobody else holds any more is freed, and nothing that torch does with a tensor is in the way."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule

ALGORITHMS = {
    "AdamW": {},
    "SGD": {"momentum": 0.9},
    "Adagrad": {},
    "Adafactor": {},
    "Muon": {},
}
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)


def trained(algorithm: str) -> tuple[nn.ModuleDict, GroupedOptimizer]:
    net = nn.ModuleDict({name: nn.Linear(6, 6, bias=False) for name in ("kept", "dropped")})
    rules = [Rule("*", optimizer=algorithm, lr=0.1, **ALGORITHMS[algorithm]), Rule("dropped.*", lr=0.2, optional=True)]
    optimizer = GroupedOptimizer(net, Plan(rules))
    for _ in range(3):
        step(net, optimizer)
    return net, optimizer


def step(net: nn.Module, optimizer: GroupedOptimizer) -> None:
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.zero_grad()


def moments(optimizer: GroupedOptimizer, p: torch.Tensor) -> list[weakref.ref[torch.Tensor]]:
    return [weakref.ref(value) for value in optimizer.state[p].values() if isinstance(value, torch.Tensor)]


@algorithms
def test_moments_that_a_load_has_replaced_are_freed(algorithm: str) -> None:
    net, optimizer = trained(algorithm)
    before = [held for p in net.parameters() for held in moments(optimizer, p)]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    gc.collect()
    assert before
    assert not [held for held in before if held() is not None]


@algorithms
def test_the_state_of_a_parameter_that_was_taken_out_is_freed(algorithm: str) -> None:
    net, optimizer = trained(algorithm)
    gone = net["dropped"].weight
    before = moments(optimizer, gone)
    del optimizer.state[gone]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["name"] != "dropped"]
    gc.collect()
    assert before
    assert not [held for held in before if held() is not None]
    del net["dropped"]
    step(net, optimizer)


@algorithms
def test_a_parameter_that_left_the_groups_and_the_model_is_freed_at_the_next_step(algorithm: str) -> None:
    """A part that is dropped; originals that a trainer has put shards in place of."""
    net, optimizer = trained(algorithm)
    scheduler = PlanScheduler(optimizer)
    gone = weakref.ref(net["dropped"].weight)
    del optimizer.state[gone()]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["name"] != "dropped"]
    del net["dropped"]
    step(net, optimizer)
    scheduler.step()
    gc.collect()
    assert gone() is None
    assert "dropped" in str(optimizer.resolution)
    assert [len(group["params"]) for group in optimizer.resolution.torch_groups()] == [1, 0]
    optimizer.regroup()
    assert [group["name"] for group in optimizer.param_groups] == ["base"]


def test_a_parameter_that_left_the_groups_alone_is_the_models_still() -> None:
    net, optimizer = trained("AdamW")
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["name"] != "dropped"]
    step(net, optimizer)
    assert optimizer.resolution.torch_groups()[1]["params"] == [net["dropped"].weight]


@algorithms
def test_gradients_are_freed_with_the_step(algorithm: str) -> None:
    net, optimizer = trained(algorithm)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    held = [weakref.ref(p.grad) for p in net.parameters()]
    optimizer.step()
    optimizer.zero_grad()
    assert not [gradient for gradient in held if gradient() is not None]


@algorithms
def test_an_optimizer_that_was_let_go_keeps_neither_parameters_nor_moments(algorithm: str) -> None:
    net, optimizer = trained(algorithm)
    held = [weakref.ref(p) for p in net.parameters()]
    held += [own for p in net.parameters() for own in moments(optimizer, p)]
    del net, optimizer
    gc.collect()
    assert not [tensor for tensor in held if tensor() is not None]


@algorithms
def test_tensors_may_be_swapped_between_steps(algorithm: str) -> None:
    """`torch.utils.swap_tensors`, which `Module.to` may use, refuses a tensor to which there is a weak reference."""
    net, optimizer = trained(algorithm)
    torch.utils.swap_tensors(net["kept"].weight, nn.Parameter(torch.ones(6, 6)))
    step(net, optimizer)
    assert (net["kept"].weight != 1).any()
