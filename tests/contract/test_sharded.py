"""Section g, as far as one process goes: parameters that are DTensors, on one mesh or several."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from tests.contract.mixes import ADAGRAD, MIX, MUON, Mix, Net, backward, steps, train

mixes = pytest.mark.parametrize("mix", [MIX, ADAGRAD, MUON], ids=["sgd+adamw", "adagrad", "muon"])


@pytest.fixture(scope="module", autouse=True)
def process() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def mesh(name: str = "shard") -> DeviceMesh:
    return DeviceMesh("cpu", [0], mesh_dim_names=(name,))


def sharded(net: Net) -> Net:
    fully_shard(net.head, mesh=mesh())
    fully_shard(net, mesh=mesh())
    return net


def spread(net: Net) -> Net:
    """Two parts on two meshes, the rest plain."""
    for name, where in (("hidden", mesh("first")), ("head", mesh("second"))):
        part = net.get_submodule(name)
        for leaf, p in list(part.named_parameters()):
            setattr(part, leaf, nn.Parameter(distribute_tensor(p.detach(), where, [Shard(0)])))
    return net


def whole(t: torch.Tensor) -> torch.Tensor:
    return t.full_tensor() if isinstance(t, DTensor) else t


def assert_same_wholes(ours: nn.Module, theirs: nn.Module) -> None:
    expected = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        torch.testing.assert_close(whole(p).detach(), expected[name].detach(), rtol=0, atol=1e-6)


@mixes
def test_built_after_fully_shard_it_steps_as_unsharded(mix: Mix) -> None:
    ours, theirs = sharded(mix.net()), mix.net()
    optimizer = mix.optimizer(ours)
    train(ours, range(4), optimizer.step)
    train(theirs, range(4), steps(mix.separate(theirs)))
    assert isinstance(ours.hidden.weight, DTensor)
    assert_same_wholes(ours, theirs)


@mixes
def test_parameters_replaced_by_shards_after_it_was_built_are_stepped(mix: Mix) -> None:
    """Accelerate's FSDP2: the optimizer is made first, then every parameter is exchanged by name and place."""
    ours, theirs = mix.net(), mix.net()
    optimizer = mix.optimizer(ours)
    sharded(ours)
    named = dict(ours.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [named[name] for name in group["param_names"]]
    train(ours, range(4), optimizer.step)
    train(theirs, range(4), steps(mix.separate(theirs)))
    assert_same_wholes(ours, theirs)


def gradients_of(seed: int) -> dict[str, torch.Tensor]:
    net = MIX.net()
    backward(net, seed)
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def give(net: nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    for name, p in net.named_parameters():
        g = gradients[name].clone()
        p.grad = distribute_tensor(g, p.device_mesh, p.placements) if isinstance(p, DTensor) else g


def test_parameters_on_several_meshes_share_a_group() -> None:
    ours, theirs = spread(MIX.net()), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    assert len(optimizer.param_groups) == 2
    for seed in range(4):
        for net, step in ((ours, optimizer.step), (theirs, steps(separate))):
            give(net, gradients_of(seed))
            step()
    assert_same_wholes(ours, theirs)


class Counted(torch.optim.Optimizer):
    """A class that counts its steps in the group, as many of other libraries do."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"] / group["count"])


def test_what_a_class_counts_in_a_group_on_several_meshes_is_kept() -> None:
    ours, theirs = spread(MIX.net()), MIX.net()
    optimizer = GroupedOptimizer(ours, Plan([Rule("*", optimizer=Counted, lr=0.1)]))
    plain = Counted(theirs.parameters())
    for seed in range(4):
        for net, step in ((ours, optimizer.step), (theirs, plain.step)):
            give(net, gradients_of(seed))
            step()
    assert optimizer.param_groups[0]["count"] == 4
    assert_same_wholes(ours, theirs)


def test_a_clip_norm_spans_meshes_and_plain_parameters() -> None:
    ours, theirs = spread(MIX.net()), MIX.net()
    optimizer = GroupedOptimizer(ours, Plan([Rule("*", optimizer="SGD", lr=0.0)], clip=clip_norm(0.1)))
    for net in (ours, theirs):
        give(net, gradients_of(0))
    optimizer.step()
    norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
    torch.testing.assert_close(optimizer.measured["plan"].norm, norm)
    clipped = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        torch.testing.assert_close(whole(p.grad), clipped[name])


def test_a_sharded_run_is_saved_and_loaded_by_dcp() -> None:
    net = sharded(MIX.net())
    optimizer = MIX.optimizer(net)
    train(net, range(3), optimizer.step)
    saved = copy.deepcopy(get_optimizer_state_dict(net, optimizer))
    again = sharded(MIX.net())
    resumed = MIX.optimizer(again)
    set_optimizer_state_dict(again, resumed, saved)
    again.load_state_dict(net.state_dict())
    train(net, range(3, 5), optimizer.step)
    train(again, range(3, 5), resumed.step)
    expected = dict(net.named_parameters())
    for name, p in again.named_parameters():
        torch.testing.assert_close(whole(p), whole(expected[name]))


def test_a_matrix_is_told_from_a_vector_before_sharding() -> None:
    optimizer = GroupedOptimizer(sharded(MIX.net()), MUON.plan)
    (group,) = [group for group in optimizer.param_groups if group["algorithm"] == "Muon"]
    assert group["param_names"] == ["hidden.weight"]
