"""Observing several processes: rank 0 writes, and what it writes is what one process on the joint batch would."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.errors import RecordError
from groupwise.observe import Observer
from groupwise.records import Run, read
from tests.distributed.jobs import patience
from tests.distributed.ranks import Ranks

EVERYTHING = {"values": 1, "gradients": 1, "weights": 1, "cosines": 1, "updates": 1, "tasks": 1}
BASE = Rule("*", optimizer="AdamW", lr=0.01, clip=clip_norm(0.1))
PLAN = Plan([BASE, Rule("2.*", optimizer="SGD", lr=0.1, weight_decay=0.0)])
SPREAD = {"step_size_low", "step_size_high"}  # of split tensors the mean of the ranks' own percentiles


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, observer: Observer, rank: int, world: int) -> None:
    """Three steps on this rank's part of the batch."""
    for step in range(3):
        x = torch.randn(4, 4, generator=torch.Generator().manual_seed(step)).chunk(world)[rank]
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        observer.log(loss=loss, scalars={f"only on {rank}": float(rank)} if world > 1 and rank else None)
        optimizer.step()


def run_of(kind: str, folder: str) -> None:
    """A run on every rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model: nn.Module = net()
    if kind == "ddp":
        model = DistributedDataParallel(model)
    else:
        for layer in (model[0], model[2], model):  # type: ignore[index]
            fully_shard(layer)
    optimizer = GroupedOptimizer(model, PLAN)
    with Observer(optimizer, folder, every=EVERYTHING, along_path=True) as observer:
        trained(model, optimizer, observer, rank, world)
    dist.barrier()


def alone(folder: Path) -> Run:
    model = net()
    optimizer = GroupedOptimizer(model, PLAN)
    with Observer(optimizer, folder, every=EVERYTHING, along_path=True) as observer:
        trained(model, optimizer, observer, 0, 1)
    return read(folder)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_what_rank_0_writes_is_of_all_ranks(two: Ranks, kind: str, tmp_path: Path) -> None:
    two(run_of, kind, str(tmp_path / "two"))
    joint, one = read(tmp_path / "two"), alone(tmp_path / "one")
    assert list(joint.steps) == list(one.steps)
    assert joint.names("groups") == one.names("groups")
    assert [group.parameters for group in joint.groups] == [group.parameters for group in one.groups]
    for group in one.names("groups"):
        assert joint.names("groups", group) == one.names("groups", group)
        for statistic in set(one.names("groups", group)) - (SPREAD if kind == "fsdp" else set()):
            found, expected = (run.series("groups", group, statistic) for run in (joint, one))
            assert list(found.values) == pytest.approx(list(expected.values), rel=1e-4, abs=1e-9), (group, statistic)
    assert list(joint.series("scalars", "loss").values) == pytest.approx(list(one.series("scalars", "loss").values))
    assert joint.names("scalars") == ["loss"]  # a number that rank 0 did not log is not its own to write


@patience(0.2)
def alone_on_rank_0(folder: str) -> float | None:
    rank = dist.get_rank()
    model = DistributedDataParallel(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = None
    if rank == 0:
        with Observer(optimizer, folder) as observer:
            trained(model, optimizer, observer, rank, 2)
            loss = observer.last.scalars["loss"] if observer.last else None
    else:
        trained(model, optimizer, Deaf(), rank, 2)  # type: ignore[arg-type]
    dist.barrier()
    return loss


class Deaf:
    """In place of an observer."""

    def log(self, loss: object = None, scalars: object = None) -> None: ...


def test_an_observer_on_rank_0_alone_waits_for_nobody(two: Ranks, tmp_path: Path) -> None:
    losses = two(alone_on_rank_0, str(tmp_path))
    assert losses[1] is None
    assert list(read(tmp_path).series("scalars", "loss").values)[-1] == losses[0]


@patience(0.2)
def split_and_alone(folder: str) -> str:
    model = net()
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    message = ""
    if dist.get_rank() == 0:
        observer = Observer(optimizer, folder)
        try:
            observer.before_clip()
        except RecordError as error:
            message = str(error)
        observer.close()
    dist.barrier()
    return message


def test_split_parameters_need_an_observer_on_every_rank(two: Ranks, tmp_path: Path) -> None:
    assert "every rank has to make an Observer" in two(split_and_alone, str(tmp_path))[0]
