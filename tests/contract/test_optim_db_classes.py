"""Every class of PyTorch's optimizer database, in every configuration: under a plan, beside SGD, as alone."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.common_optimizers import OptimizerInfo, OptimizerInput

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.errors import OptimizerError
from tests.contract.mixed import DB
from tests.contract.mixes import assert_same


def cases() -> Iterator[Any]:
    for info in DB.values():
        for i, chosen in enumerate(info.optim_inputs_func(device="cpu")):
            if info.name != "LBFGS":
                yield pytest.param(info, chosen, id=f"{info.name} {i}: {chosen.desc}")


def made(info: OptimizerInfo) -> nn.Sequential:
    torch.manual_seed(2)
    if info.only_supports_sparse_grads:
        return nn.Sequential(nn.Embedding(4, 3, sparse=True), nn.Linear(3, 5), nn.Embedding(5, 5, sparse=True))
    return nn.Sequential(nn.Linear(4, 3, bias=info.name != "Muon"), nn.Linear(3, 5), nn.Linear(5, 5, bias=False))


def run(info: OptimizerInfo, net: nn.Sequential, seeds: range, *optimizers: torch.optim.Optimizer) -> None:
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, p in net.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator)
            if info.only_supports_sparse_grads and not name.startswith("1"):
                p.grad = p.grad.to_sparse(1)
        for optimizer in optimizers:
            optimizer.step()


def number(x: Any) -> Any:
    """A value as a plan may declare it: tensors are put into the groups afterwards."""
    if isinstance(x, tuple):
        return tuple(map(number, x))
    return x.item() if isinstance(x, torch.Tensor) else x


def optimizer_of(info: OptimizerInfo, given: dict[str, Any], net: nn.Sequential) -> GroupedOptimizer:
    """The class on the outer layers, SGD on the one between."""
    declared = {name: number(value) for name, value in given.items()}
    optimizer = GroupedOptimizer(
        net, Plan([Rule(["0.*", "2.*"], optimizer=info.optim_cls, **declared), Rule("1.*", optimizer="SGD", lr=0.1)])
    )
    group = next(group for group in optimizer.param_groups if "0.weight" in group["param_names"])
    group.update({name: value for name, value in given.items() if number(value) is not value and name in group})
    return optimizer


@pytest.mark.parametrize(("info", "chosen"), list(cases()))
def test_a_class_under_a_plan_steps_as_alone(info: OptimizerInfo, chosen: OptimizerInput) -> None:
    ours, theirs = made(info), made(info)
    given = {"lr": 1e-3} | chosen.kwargs
    optimizer = optimizer_of(info, copy.deepcopy(given), ours)
    outer = [*theirs[0].parameters(), *theirs[2].parameters()]
    separate = [info.optim_cls(outer, **copy.deepcopy(given)), torch.optim.SGD(theirs[1].parameters(), lr=0.1)]
    run(info, ours, range(6), optimizer)
    run(info, theirs, range(6), *separate)
    assert_same(ours, theirs)
    twin = copy.deepcopy(ours)
    resumed = optimizer_of(info, copy.deepcopy(given), twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(info, twin, range(6, 9), resumed)
    run(info, theirs, range(6, 9), *separate)
    assert_same(twin, theirs)


def test_the_one_class_that_works_on_all_parameters_as_one_vector_is_refused() -> None:
    net = made(DB["LBFGS"])
    with pytest.raises(OptimizerError, match="LBFGS evaluates the loss itself and treats all parameters as one vector"):
        GroupedOptimizer(net, Plan([Rule("*", optimizer="LBFGS", lr=1.0)]))
