"""Parts of sharded parameters: stepped as in one process where that is possible, refused where it is not."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from groupwise import GroupedOptimizer, GroupwiseError, Parts, Plan, Rule, scale
from tests.distributed.jobs import whole
from tests.distributed.ranks import Ranks

SLOW = Rule("*@q", lr=scale(0.5))
QKV = {"axis": 0, "into": ["q", "k", "v"]}
COLUMNS = {"axis": 1, "into": ["q", "k", "v"]}
STACK = {"axis": 1, "into": ["q", "k"], "stack": True}

CASES: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any], bool]] = {
    "fused rows under muon": ("Muon", (12, 6), 0, QKV, True),
    "fused rows under muon, split between columns": ("Muon", (12, 6), 1, QKV, True),
    "fused columns under muon": ("Muon", (6, 12), 0, COLUMNS, True),
    "a stack under muon": ("Muon", (3, 6, 5), 0, STACK, True),
    "rows of one rate": ("AdamW", (12, 6), 0, QKV, False),
    "columns of other rates": ("AdamW", (6, 12), 0, COLUMNS, True),
    "rows of other rates, split between columns": ("AdamW", (12, 6), 1, QKV, True),
    "a stack of other rates": ("AdamW", (3, 6, 5), 0, STACK, True),
}


def plan_of(name: str) -> Plan:
    algorithm, _, _, parts, slow = CASES[name]
    rules = [Rule("*", optimizer=algorithm, lr=0.1, weight_decay=0.1), *([SLOW] if slow else [])]
    return Plan(rules, parts=[Parts("w", **parts)])


def built(name: str, over: Sequence[int] = (2,)) -> tuple[nn.ParameterDict, GroupedOptimizer, GroupedOptimizer]:
    """A sharded and a whole parameter with the same numbers, and their optimizers."""
    _, shape, dim, _, _ = CASES[name]
    mesh = init_device_mesh("cpu", tuple(over))
    torch.manual_seed(0)
    w = torch.randn(shape)
    net = nn.ParameterDict({"w": nn.Parameter(distribute_tensor(w.clone(), mesh, [Shard(dim)]))})
    plain = nn.ParameterDict({"w": nn.Parameter(w.clone())})
    return net, GroupedOptimizer(net, plan_of(name)), GroupedOptimizer(plain, plan_of(name))


def stepped(
    net: nn.ParameterDict, ours: GroupedOptimizer, theirs: GroupedOptimizer, steps: int, seed: int = 1
) -> float:
    """The largest difference after some steps on the same gradients."""
    sharded, plain = net["w"], theirs.param_groups[0]["params"][0]
    torch.manual_seed(seed)
    for _ in range(steps):
        plain.grad = torch.randn(plain.shape)
        sharded.grad = distribute_tensor(plain.grad.clone(), sharded.device_mesh, sharded.placements)
        ours.step()
        theirs.step()
    return float((whole(sharded) - plain.detach()).abs().max())


def compared(name: str) -> tuple[float, bool]:
    net, ours, theirs = built(name)
    apart = stepped(net, ours, theirs, 3)
    held = [value for value in ours.state[net["w"]].values() if value.ndim]
    return apart, all(isinstance(value, DTensor) and value.shape == net["w"].shape for value in held)


@pytest.mark.parametrize("name", CASES)
def test_the_parts_of_a_sharded_parameter_are_stepped_as_in_one_process(two: Ranks, name: str) -> None:
    for apart, in_shards in two(compared, name):
        assert apart < 1e-6
        assert in_shards


def checkpointed() -> float:
    net, ours, theirs = built("fused rows under muon")
    stepped(net, ours, theirs, 2)
    holder = nn.Module()
    holder.w = net["w"]
    saved = get_optimizer_state_dict(holder, ours)
    fresh = GroupedOptimizer(holder, plan_of("fused rows under muon"))
    set_optimizer_state_dict(holder, fresh, saved)
    return stepped(net, fresh, theirs, 2, seed=2)


def test_a_distributed_checkpoint_of_parts_goes_on_where_it_was(two: Ranks) -> None:
    assert all(apart < 1e-6 for apart in two(checkpointed))


def cut_along_the_shards() -> str:
    mesh = init_device_mesh("cpu", (2,))
    net = nn.ParameterDict({"w": nn.Parameter(distribute_tensor(torch.randn(12, 6), mesh, [Shard(0)]))})
    try:
        GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=0.1), SLOW], parts=[Parts("w", **QKV)]))
    except GroupwiseError as error:
        return str(error)
    return ""


def test_parts_of_other_rates_along_the_axis_of_the_shards_are_refused(two: Ranks) -> None:
    for said in two(cut_along_the_shards):
        assert "'w' is sharded along axis 0, along which the plan cuts it into parts with other rates" in said
        assert "shard_placement_fn" in said


def sharded_since() -> str:
    mesh = init_device_mesh("cpu", (2,))
    net = nn.ParameterDict({"w": nn.Parameter(torch.randn(12, 6))})
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=0.1), SLOW], parts=[Parts("w", **QKV)]))
    net["w"] = nn.Parameter(distribute_tensor(net["w"].detach(), mesh, [Shard(0)]))
    optimizer.param_groups[0]["params"] = [net["w"]]
    net["w"].grad = distribute_tensor(torch.randn(12, 6), mesh, [Shard(0)])
    try:
        optimizer.step()
    except GroupwiseError as error:
        return str(error)
    return ""


def test_so_are_those_of_a_parameter_that_was_sharded_after_the_build(two: Ranks) -> None:
    assert all("'w' is sharded along axis 0, along which" in said for said in two(sharded_since))
