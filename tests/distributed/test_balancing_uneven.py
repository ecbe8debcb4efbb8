"""Ranks whose batches differ: tasks that are missing, broken or alone on a rank. None waits for another, and the update
is that of the joint batch, whatever the rank itself had to bring."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from groupwise.balance import FAMO, AutoLambda, Balancer, CAGrad, FromLosses, GradNorm, MoCo, PCGrad, Periodic
from groupwise.errors import GroupwiseWarning
from tests.distributed.ranks import Ranks
from tests.distributed.tasks import Has, batches, joint, message, model, trained

STEPS = 2
BROKEN: Mapping[str, tuple[Has, str]] = {
    "a task is broken on one rank": ({0: ("a", "b"), 1: ("a", "b")}, "b"),
    "all that one rank has is broken": ({0: ("b",), 1: ("a", "b", "c")}, "b"),
    "a rank has nothing": ({0: (), 1: ("a", "b")}, ""),
    "one has one task, the other two": ({0: ("b",), 1: ("a", "b")}, ""),
    "a broken task is the only one": ({0: ("a",), 1: ()}, "a"),
}
METHODS = {
    "weighted": lambda: (FromLosses(torch.cos), "weighted"),
    "unweighted": lambda: (FromLosses(torch.cos), "unweighted"),
    "gramian": lambda: (CAGrad(), "unweighted"),
    "every other step": lambda: (Periodic(CAGrad(), 2), "unweighted"),
}


def spoilt(losses: Mapping[str, Tensor], broken: str, rank: int | None) -> dict[str, Tensor]:
    """The task's loss is nan, on rank 0 if there are ranks."""
    worse = {broken} if rank in {0, None} else set()
    return {task: loss * torch.nan if task in worse else loss for task, loss in losses.items()}


def weights(method: str, case: str, rank: int | None) -> dict[str, Tensor]:
    """After training, on one rank or in one process."""
    has, broken = BROKEN[case]
    net, x = model(), batches(STEPS)
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)
    kind, heads = METHODS[method]()
    balancer = Balancer(kind, task_only=heads, parameters=wrapped)

    def losses(step: int) -> dict[str, Tensor]:
        found = joint(net, x[step], has) if rank is None else wrapped(x[step, rank], has[rank])
        return spoilt(found, broken, rank)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupwiseWarning)
        trained(net, balancer, losses, STEPS)
    return {name: p.detach() for name, p in net.named_parameters()}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("method", METHODS)
def test_ranks_with_different_batches_make_the_joint_update(two: Ranks, method: str, case: str) -> None:
    first, other = two(_weights, method, case)
    for name, expected in weights(method, case, None).items():
        assert torch.equal(first[name], other[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-10, atol=1e-12)


def _weights(method: str, case: str) -> dict[str, Tensor]:
    return weights(method, case, torch.distributed.get_rank())


def test_the_layer_at_which_a_method_looks_is_that_of_the_joint_batch(two: Ranks) -> None:
    for has in ({0: ("a", "b"), 1: ("a", "b")}, {0: ("a",), 1: ("b", "c")}):
        _same(two, _at_layer, has)


def _at_layer(has: Has, rank: int | None) -> dict[str, Tensor]:
    net, x = model(), batches(STEPS)
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)
    balancer = Balancer(GradNorm(), parameters=wrapped, at=net.trunk[2])
    trained(net, balancer, lambda s: joint(net, x[s], has) if rank is None else wrapped(x[s, rank], has[rank]), STEPS)
    return {name: p.detach() for name, p in net.named_parameters()}


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_features_are_those_of_the_joint_batch(two: Ranks, heads: str) -> None:
    for broken, tasks in (("", "bac"), ("b", "bac"), ("", "a")):
        _same(two, _at_features, heads, broken, tasks)


def _at_features(heads: str, broken: str, tasks: str, rank: int | None) -> dict[str, Tensor]:
    net, x = model(), batches(STEPS)
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)
    balancer = Balancer(CAGrad(), task_only=heads, parameters=wrapped)
    for step in range(STEPS):
        z = net.trunk(x[step].flatten(0, 1) if rank is None else x[step, rank]).tanh()
        losses = {task: (net.heads[task](z) - ord(task) + 97).square().mean() for task in tasks}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GroupwiseWarning)
            balancer.backward(spoilt(losses, broken, rank), features=z)
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_a_method_that_remembers_rows_finds_its_columns_again(two: Ranks) -> None:
    _same(two, _remembering, {0: ("a",), 1: ("b",)}, {0: (), 1: ("c",)}, {0: ("c",), 1: ("a", "b")})


def _remembering(*arguments: Any) -> dict[str, Tensor]:
    *shares, rank = arguments
    net, x = model(), batches(len(shares))
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)

    def losses(step: int) -> dict[str, Tensor]:
        return joint(net, x[step], shares[step]) if rank is None else wrapped(x[step, rank], shares[step][rank])

    trained(net, Balancer(MoCo(), parameters=wrapped), losses, len(shares))
    return {name: p.detach() for name, p in net.named_parameters()}


def test_held_out_batches_are_joined(two: Ranks) -> None:
    _same(two, _learning, {0: ("a", "b"), 1: ("b", "a")})
    _same(two, _learning, {0: ("a", "b"), 1: ("c",)})
    _same(two, _learning, {0: (), 1: ("a", "b")})


def _learning(has: Has, rank: int | None) -> dict[str, Tensor]:
    """The training batch has the tasks the other way round."""
    net, x, other = model(), batches(2), {0: has[1], 1: has[0]}
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)
    balancer = Balancer(AutoLambda(lr=0.1), parameters=wrapped)
    for step in range(2):
        balancer.learn(joint(net, x[step], has) if rank is None else wrapped(x[step, rank], has[rank]))
        balancer.backward(joint(net, x[1], other) if rank is None else wrapped(x[1, rank], other[rank]))
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_losses_after_the_step_are_joined(two: Ranks) -> None:
    _same(two, _famo, {0: ("a", "b"), 1: ("b",)})
    _same(two, _famo, {0: (), 1: ("a", "b")})


def _famo(has: Has, rank: int | None) -> dict[str, Tensor]:
    net, x = model(), batches(2)
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)
    balancer = Balancer(FAMO(lr=0.5), parameters=wrapped)
    for step in range(2):
        balancer.backward(joint(net, x[step], has) if rank is None else wrapped(x[step, rank], has[rank]))
        with torch.no_grad():
            balancer.after_step(joint(net, x[0], has) if rank is None else net(x[0, rank], has[rank]))
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_a_micro_batch_may_have_nothing_on_a_rank(two: Ranks) -> None:
    for method in ("gramian", "every other step", "unweighted"):
        _same(two, _micro, {0: (), 1: ("a", "b")}, method)


def _micro(has: Has, method: str, rank: int | None) -> dict[str, Tensor]:
    """The second micro-batch has every task on every rank, as each task's mean over the ranks asks for."""
    net, x, all_of_it = model(), batches(4), {0: ("b", "a"), 1: ("a", "b")}
    wrapped = net if rank is None else DistributedDataParallel(net, find_unused_parameters=True)
    kind, heads = METHODS[method]()
    balancer = Balancer(kind, task_only=heads, parameters=wrapped)
    for step in (0, 2):
        if rank is None:
            balancer.accumulate({task: loss / 2 for task, loss in joint(net, x[step], has).items()})
            balancer.backward(joint(net, x[step + 1], all_of_it))
        else:
            balancer.accumulate(wrapped(x[step, rank], has[rank]))
            balancer.backward(wrapped(x[step + 1, rank], all_of_it[rank]))
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def _same(two: Ranks, work: Callable[..., dict[str, Tensor]], *arguments: Any) -> None:
    """The ranks do the same, and what one process does on the joint batch."""
    first, other = two(_ranked, work, *arguments)
    alone = work(*arguments, None)
    assert first.keys() == other.keys() == alone.keys()
    for name, expected in alone.items():
        assert torch.equal(first[name], other[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-10, atol=1e-12)


def _ranked(work: Callable[..., dict[str, Tensor]], *arguments: Any) -> dict[str, Tensor]:
    return work(*arguments, torch.distributed.get_rank())


def test_an_error_on_one_rank_is_an_error_on_all(two: Ranks) -> None:
    first, other = two(_failing)
    for ours, theirs in zip(first, other, strict=True):
        assert "1 of 2 ranks could not go on with their batch" in theirs
        assert "no task on any of 2 ranks" not in ours
    assert first[0].startswith("the loss of task 'a' is not a scalar")
    assert first[1].startswith("the loss of task 'a' reaches none of the tensors that parameters= names")
    assert first[2].startswith("the loss of task 'b' is 'inf' (str), not a number")
    assert all("no task on any of 2 ranks" in said for said in two(_idle))


def _failing() -> list[str]:
    """Rank 0 brings what cannot be balanced; the methods look at gradients and at losses."""
    net, x, spoilt = model(), batches(1)[0, 0], torch.distributed.get_rank() == 0
    wrapped = DistributedDataParallel(net, find_unused_parameters=True)
    stray = torch.ones((), requires_grad=True)
    said = []
    for bad in (lambda loss: loss * torch.ones(2), lambda loss: stray * 2):
        balancer = Balancer(CAGrad(), parameters=wrapped)
        losses = wrapped(x, ("a", "b"))
        losses["a"] = bad(losses["a"]) if spoilt else losses["a"]
        said.append(message(lambda b=balancer, found=losses: b.backward(found)))
    losses = {"a": 1.0, "b": "inf" if spoilt else 1.0}
    said.append(message(lambda: Balancer(FAMO(), parameters=wrapped).after_step(losses)))
    return said


def _idle() -> str:
    wrapped = DistributedDataParallel(model())
    return message(lambda: Balancer(CAGrad(), parameters=wrapped).backward({}))


def test_a_gradient_that_is_broken_outside_the_module_is_seen_by_all(two: Ranks) -> None:
    first, other = two(_outside)
    assert first == other
    assert first == (("b",), {"a": "its gradient is not finite"})


def _outside() -> tuple[tuple[str, ...], dict[str, str]]:
    """Task a has a tensor of its own on rank 0, at a place where its gradient is infinite."""
    net, x, rank = model(), batches(1)[0], torch.distributed.get_rank()
    wrapped = DistributedDataParallel(net, find_unused_parameters=True)
    losses = wrapped(x[rank], ("a", "b"))
    own = torch.zeros((), dtype=torch.float64, requires_grad=True)
    losses["a"] = losses["a"] + (own.sqrt() if rank == 0 else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupwiseWarning)
        result = Balancer(PCGrad(), parameters=wrapped).backward(losses)
    return result.tasks, result.skipped
