"""Balancing on two ranks is balancing the joint batch, and both ranks do the same, bit by bit."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from groupwise.balance import Balancer, FromGramian, FromJacobian, FromLosses, Static
from groupwise.errors import BalanceError
from tests.distributed.ranks import Ranks
from tests.distributed.tasks import BATCH, Model, joint

STEPS = 3


def crooked(gramian: Tensor) -> Tensor:
    scale = gramian.trace() + 1e-3
    return gramian.sum(1) / scale + 0.1 * torch.arange(1.0, len(gramian) + 1)


def by_rows(jacobian: Tensor) -> Tensor:
    return crooked(jacobian @ jacobian.T) @ jacobian


METHODS = {
    "gramian": lambda: FromGramian(crooked),
    "jacobian": lambda: FromJacobian(by_rows),
    "losses": lambda: FromLosses(torch.cos),
}
SHARES: Mapping[str, tuple[str, ...]] = {"everywhere": ("a", "b", "c"), "elsewhere": ("c", "a")}


def trained(method: str, heads: str, tasks: Mapping[int, tuple[str, ...]], rank: int | None) -> dict[str, Tensor]:
    """One rank's share of the batch, or the whole batch in one process."""
    torch.manual_seed(0)
    model = Model().double()
    x = torch.randn(STEPS, 2, BATCH, 5, dtype=torch.float64)
    wrapped = model if rank is None else DistributedDataParallel(model, find_unused_parameters=True)
    kind = METHODS[method]()
    balancer = Balancer(kind, task_only=heads, parameters=wrapped)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        if rank is None:
            balancer.backward(joint(model, x[step], tasks))
        else:
            balancer.backward(wrapped(x[step, rank], tasks[rank]))
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("second", SHARES)
@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_are_one_process_on_the_joint_batch(two: Ranks, method: str, heads: str, second: str) -> None:
    if method == "jacobian" and heads == "weighted":
        pytest.skip("a Jacobian method has no weights")
    tasks = {0: ("a", "b"), 1: SHARES[second]} if second == "elsewhere" else {0: SHARES[second], 1: SHARES[second]}
    first, other = two(_train, method, heads, tasks)
    alone = trained(method, heads, tasks, None)
    for name, expected in alone.items():
        assert torch.equal(first[name], other[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-11, atol=1e-12)


def _train(method: str, heads: str, tasks: Mapping[int, tuple[str, ...]]) -> dict[str, Tensor]:
    return trained(method, heads, tasks, torch.distributed.get_rank())


def test_ranks_that_nobody_told_of_are_an_error(two: Ranks) -> None:
    for message in two(_untold):
        assert "2 ranks are running" in message
        assert "pass parameters= the DistributedDataParallel or the fully_shard module" in message


def _untold() -> str:
    model = Model().double()
    try:
        Balancer(FromGramian(crooked)).backward(model(torch.randn(2, 5, dtype=torch.float64), ("a", "b")))
    except BalanceError as error:
        return str(error)
    return "nothing was said"


def test_one_forward_for_each_task_says_what_to_do_and_that_works(two: Ranks) -> None:
    for message, apart, together in two(_forwards):
        assert "accumulate() right after its own forward, with find_unused_parameters=True" in message
        torch.testing.assert_close(apart, together, rtol=1e-11, atol=1e-12)


def _forwards() -> tuple[str, Tensor, Tensor]:
    """The message; the trunk's gradient by the way out, and by one forward for all tasks."""
    x = torch.randn(2, BATCH, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine = x[torch.distributed.get_rank()]

    def trunk(way: Callable[[Balancer, DistributedDataParallel], object]) -> Tensor:
        torch.manual_seed(0)
        wrapped = DistributedDataParallel(Model().double(), find_unused_parameters=True)
        way(Balancer(Static({"a": 1.0, "b": 2.0}), parameters=wrapped), wrapped)
        found: Tensor = wrapped.module.trunk[0].weight.grad
        return found

    def apart(balancer: Balancer, wrapped: DistributedDataParallel) -> None:
        balancer.accumulate(wrapped(mine, ("a",)))
        balancer.backward(wrapped(mine, ("b",)))

    found = trunk(apart), trunk(lambda balancer, wrapped: balancer.backward(wrapped(mine, ("a", "b"))))
    with pytest.raises(BalanceError, match="met a parameter twice") as said:
        trunk(lambda balancer, wrapped: balancer.backward({**wrapped(mine, ("a",)), **wrapped(mine, ("b",))}))
    return str(said.value), *found


def test_micro_batches_on_two_ranks(two: Ranks) -> None:
    first, other = two(_accumulate, "gramian")
    assert torch.equal(first, other)
    torch.manual_seed(0)
    model = Model().double()
    x = torch.randn(2, 2, BATCH, 5, dtype=torch.float64)
    losses = {}
    for task in "abc":
        parts = [model(x[rank, i], (task,))[task] for rank in range(2) for i in range(2)]
        losses[task] = torch.stack(parts).sum() / 2
    Balancer(FromGramian(crooked)).backward(losses)
    torch.testing.assert_close(first, model.trunk[0].weight.grad, rtol=1e-11, atol=1e-12)


def _accumulate(method: str) -> Tensor:
    torch.manual_seed(0)
    model = Model().double()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    x = torch.randn(2, 2, BATCH, 5, dtype=torch.float64)[torch.distributed.get_rank()]
    balancer = Balancer(METHODS[method](), parameters=wrapped)
    balancer.accumulate(wrapped(x[0], ("a", "b", "c")))
    balancer.backward(wrapped(x[1], ("c", "b", "a")))
    found: Tensor = model.trunk[0].weight.grad
    return found
