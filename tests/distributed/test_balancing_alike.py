"""Ranks that do not balance the same way: an error on every rank that names the difference, and nobody waits."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from groupwise.balance import (
    DWA,
    FAMO,
    RLW,
    AutoLambda,
    Balancer,
    CAGrad,
    FromGramian,
    Method,
    MoCo,
    PCGrad,
    Smoothed,
    Static,
    Uncertainty,
)
from groupwise.errors import BalanceError, GroupwiseWarning
from tests.distributed.ranks import Ranks
from tests.distributed.tasks import batches, message, model, trained
from tests.distributed.test_balancing_fsdp import sharded

PAIRS: Mapping[str, tuple[Callable[[], Method], Callable[[], Method], str]] = {
    "another method": (CAGrad, PCGrad, "method: CAGrad on rank 0, PCGrad on rank 1"),
    "another shape": (CAGrad, Uncertainty, "method: CAGrad on rank 0, Uncertainty on rank 1"),
    "another constant": (lambda: CAGrad(0.2), lambda: CAGrad(0.8), "constants: CAGrad(c=0.2"),
    "another weight": (
        lambda: Static({"a": 1.0, "b": 2.0}),
        lambda: Static({"b": 2.5, "a": 1.0}),
        "Static(weights={'a': 1.0, 'b': 2.5}) on rank 1",
    ),
    "another one inside": (lambda: Smoothed(CAGrad()), lambda: Smoothed(CAGrad(0.1)), "constants: Smoothed(method="),
    "other draws": (
        lambda: RLW(generator=torch.Generator().manual_seed(1)),
        lambda: RLW(generator=torch.Generator().manual_seed(2)),
        "draws: ",
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_another_method_or_constant_is_an_error_on_all_ranks(two: Ranks, case: str) -> None:
    for said in two(_different, case):
        assert said.startswith("the ranks are not balancing the same way; ")
        assert PAIRS[case][2] in said


def _different(case: str) -> str:
    rank = torch.distributed.get_rank()
    wrapped, x = DistributedDataParallel(model()), batches(1)[0, rank]
    balancer = Balancer(PAIRS[case][rank](), parameters=wrapped)
    said = message(lambda: balancer.backward(wrapped(x, "abc" if case != "another weight" else "ab")))
    assert not any(p.grad is not None and bool(p.grad.any()) for p in wrapped.parameters())
    assert balancer.step == 0
    return said


def test_what_means_the_same_is_the_same(two: Ranks) -> None:
    assert two(_alike) == [["nothing was said"] * 3] * 2


def _alike() -> list[str]:
    rank = torch.distributed.get_rank()
    weights = {0: {"a": 1.0, "b": 2.0, "c": 3.0}, 1: {"c": 3.0, "b": 2, "a": 1.0}}[rank]
    said = []
    for method in (Static(weights), FromGramian(lambda gramian: gramian.new_ones(len(gramian))), PCGrad()):
        wrapped, x = DistributedDataParallel(model()), batches(1)[0, rank]
        balancer = Balancer(method, parameters=wrapped)
        said.append(message(lambda b=balancer, w=wrapped, x=x: b.backward(w(x, "abc"))))
    return said


ARGUMENTS: Mapping[str, tuple[Any, Any]] = {
    "task_only": ("unweighted", "weighted"),
    "nonfinite": ("skip_task", "raise"),
    "total_steps": (10, 20),
    "route": ("auto", "sequential"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_another_argument_is_an_error_on_all_ranks(two: Ranks, name: str) -> None:
    for said in two(_argument, name):
        assert "; arguments: " in said
        for value in ARGUMENTS[name]:
            assert f"{name}={value!r}" in said


def _argument(name: str) -> str:
    rank = torch.distributed.get_rank()
    wrapped, x = DistributedDataParallel(model()), batches(1)[0, rank]
    balancer = Balancer(CAGrad(), parameters=wrapped, **{name: ARGUMENTS[name][rank]})
    return message(lambda: balancer.backward(wrapped(x, "abc")))


def test_ranks_that_have_come_to_different_points_are_an_error_on_all(two: Ranks) -> None:
    for said in two(_apart):
        assert "step: 2 on rank 0, 0 on rank 1" in said["loaded on one"]
        assert "loaded state: " in said["another state"]
        assert "epoch: 1 on rank 0, 0 on rank 1" in said["an epoch on one"]
        assert "call: learn on rank 0, backward on rank 1" in said["another call"]
        assert "call: after_step on rank 0, backward on rank 1" in said["after the step on one"]
        assert "parameters: " in said["frozen on one"]
        assert said["afterwards"] == "nothing was said"


def _apart() -> dict[str, str]:
    rank = torch.distributed.get_rank()
    net, x = model(), batches(1)[0, rank]
    wrapped = DistributedDataParallel(net)

    def losses() -> dict[str, Tensor]:
        found: dict[str, Tensor] = wrapped(x, "abc")
        return found

    def fresh(method: Method, steps: int = 0) -> Balancer:
        balancer = Balancer(method, parameters=wrapped)
        for _ in range(steps):
            balancer.backward(losses())
        return balancer

    said = {}
    state, balancer = fresh(Uncertainty(), 2).state_dict(), fresh(Uncertainty())
    if rank == 0:
        balancer.load_state_dict(state)
    said["loaded on one"] = message(lambda: balancer.backward(losses()))
    balancer = fresh(Uncertainty())
    logs = {task: row + rank for task, row in state["memory"]["tasks"]["log variance"].items()}
    balancer.load_state_dict({**state, "memory": {**state["memory"], "tasks": {"log variance": logs}}})
    said["another state"] = message(lambda: balancer.backward(losses()))
    balancer = fresh(DWA(), 1)
    if rank == 0:
        balancer.end_epoch()
    said["an epoch on one"] = message(lambda: balancer.backward(losses()))
    balancer = fresh(AutoLambda())
    said["another call"] = message(lambda: (balancer.backward if rank else balancer.learn)(losses()))
    balancer = fresh(FAMO(), 1)
    calls: tuple[Callable[[Any], object], ...] = (balancer.after_step, balancer.backward)
    said["after the step on one"] = message(lambda: calls[rank](losses()))
    balancer = fresh(CAGrad())
    net.trunk[0].requires_grad_(rank == 0)
    found = losses() if rank == 0 else net(x, "abc")
    said["frozen on one"] = message(lambda: balancer.backward(found))
    net.trunk[0].requires_grad_(True)
    said["afterwards"] = message(lambda: fresh(CAGrad(), 1))
    return said


def test_a_balancer_that_is_new_on_one_rank_understands_the_others(two: Ranks) -> None:
    """It knows none of the tasks that the other knows; the exchange has one length all the same."""
    first, other = two(_rebuilt)
    assert all(torch.equal(one, theirs) for one, theirs in zip(first, other, strict=True))


def _rebuilt() -> list[Tensor]:
    rank = torch.distributed.get_rank()
    net, x = model(), batches(2)[:, rank]
    wrapped = DistributedDataParallel(net)
    balancer = Balancer(CAGrad(), parameters=wrapped)
    balancer.backward(wrapped(x[0], "abc"))
    if rank == 1:
        state = balancer.state_dict()
        balancer = Balancer(CAGrad(), parameters=wrapped)
        balancer.load_state_dict(state)
        balancer._state.loaded = 0  # as if it had not been told: only what it knows of tasks is different
    balancer.backward(wrapped(x[1], "cb"))
    return [p.grad for p in net.parameters() if p.grad is not None]


def test_many_tasks_and_parameters_are_exchanged_in_two_messages(two: Ranks) -> None:
    """What is longer than the first message: 60 tasks of a model with 66 tensors."""
    first, other = two(_many, False)
    assert all(torch.equal(one, theirs) for one, theirs in zip(first[0], other[0], strict=True))
    for said in two(_many, True):
        assert "constants: CAGrad(c=0.2" in said[1]


def _many(different: bool) -> tuple[list[Tensor], str]:
    rank, count = torch.distributed.get_rank(), 60
    net = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(3)] + [torch.nn.Linear(2, 1) for _ in range(30)])
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p)
    wrapped = DistributedDataParallel(_Forward(net), find_unused_parameters=True)
    balancer = Balancer(CAGrad(0.2 + 0.1 * rank * different), parameters=wrapped)
    said = []
    for step in range(2):
        losses = wrapped(torch.full((3, 2), 1.0 + rank + step))
        said.append(message(lambda found=losses: balancer.backward(found)))
        assert len(losses) == count
    return [p.grad for p in net.parameters() if p.grad is not None], said[-1]


class _Forward(torch.nn.Module):
    def __init__(self, net: torch.nn.ModuleList) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for layer in self.net[:3]:
            x = layer(x).tanh()
        heads = self.net[3:]
        return {f"{i} {k}": (head(x) - k).square().mean() for i, head in enumerate(heads) for k in (0, 1)}


def test_parts_of_a_model_are_compared_as_well(two: Ranks) -> None:
    for said in two(_parts):
        assert "constants: CAGrad(c=0.2" in said[0]
        assert "call: accumulate on rank 0, backward on rank 1" in said[1]
        assert said[2] == "nothing was said"


def _parts() -> list[str]:
    rank = torch.distributed.get_rank()
    net, x = sharded(model()), batches(1)[0, rank]
    said = [message(lambda: Balancer(CAGrad(0.2 + rank / 10), parameters=net).backward(net(x, "abc")))]
    balancer = Balancer(CAGrad(), parameters=net)
    calls: tuple[Callable[[Any], object], ...] = (balancer.accumulate, balancer.backward)
    said.append(message(lambda: calls[rank](net(x, "abc"))))
    return [*said, message(lambda: balancer.backward(net(x, "abc")))]


def test_a_failure_of_any_kind_before_the_exchange_is_an_error_on_all(two: Ranks) -> None:
    first, other = two(_foreign)
    assert first == "KeyError"
    assert "1 of 2 ranks could not go on with their batch" in other


def _foreign() -> str:
    """Rank 0 brings a mapping that breaks while it is read."""

    class Breaks(dict[str, Tensor]):
        def items(self) -> Any:
            raise KeyError("gone")

    rank = torch.distributed.get_rank()
    wrapped, x = DistributedDataParallel(model()), batches(1)[0, rank]
    losses = wrapped(x, "abc")
    try:
        Balancer(CAGrad(), parameters=wrapped).backward(Breaks(losses) if rank == 0 else losses)
    except KeyError:
        return "KeyError"
    except BalanceError as error:
        return str(error)
    return "nothing was said"


def test_a_broken_task_under_a_scaler_is_found_by_all(two: Ranks) -> None:
    """Its gradient is nan on rank 0 alone."""
    first, other = two(_scaled)
    assert first == other
    assert first == [[], ["b"], ["b"]]


def _scaled() -> list[list[str]]:
    rank = torch.distributed.get_rank()
    net, x = model(), batches(1)[0, rank]
    wrapped = DistributedDataParallel(net)
    balancer, scaler = Balancer(CAGrad(), parameters=wrapped), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer, skipped = torch.optim.SGD(net.parameters(), lr=0.1), []
    for _ in range(3):
        optimizer.zero_grad()
        losses = wrapped(x, "abc")
        root = (net.trunk[0].weight * 0.0).sum().abs().sqrt()
        losses["b"] = losses["b"] + (root if rank == 0 else 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GroupwiseWarning)
            skipped.append([*balancer.backward(losses, scaler=scaler).skipped])
        scaler.step(optimizer)
        scaler.update()
    return skipped


def test_columns_of_layers_that_thaw_are_those_of_one_process(two: Ranks) -> None:
    first, other = two(_thawing, 2)
    for one, theirs, expected in zip(first, other, _thawing(1), strict=True):
        assert torch.equal(one, theirs)
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-12)


def _thawing(size: int) -> list[Tensor]:
    """DDP is built while everything trains; the first layer is frozen for a step."""
    net, x = model(), batches(3)
    rank = torch.distributed.get_rank() if size > 1 else 0
    wrapped = DistributedDataParallel(net, find_unused_parameters=True) if size > 1 else net
    balancer = Balancer(MoCo(), parameters=wrapped)

    def losses(step: int) -> dict[str, Tensor]:
        net.trunk[0].requires_grad_(step != 1)
        found: dict[str, Tensor] = wrapped(x[step, rank] if size > 1 else x[step].flatten(0, 1), "abc")
        return found

    trained(net, balancer, losses, 3)
    return [p.detach() for p in net.parameters()]
