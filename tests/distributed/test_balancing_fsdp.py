"""Under FSDP2 every rank has parts of the rows, and the update is that of one process on the joint batch."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from groupwise.balance import AutoLambda, Balancer, CAGrad, FromLosses, GradDrop, NashMTL, PCGrad, Periodic, UPGrad
from groupwise.errors import GroupwiseWarning
from tests.distributed.ranks import Ranks
from tests.distributed.tasks import EVERYWHERE, Model, batches, joint, message, model, trained

STEPS = 3
METHODS = {
    "CAGrad": CAGrad,
    "UPGrad": UPGrad,
    "PCGrad": PCGrad,
    "NashMTL": NashMTL,
    "Periodic": lambda: Periodic(CAGrad(), 2),
    "losses": lambda: FromLosses(torch.cos),
}


def sharded(net: Model, mesh: Sequence[int] = (2,), layers: bool = True) -> Model:
    """Each layer by itself, then the rest; or everything as one."""
    names = ("replicate", "shard")[-len(mesh) :]
    over = init_device_mesh("cpu", tuple(mesh), mesh_dim_names=names)
    for layer in [net.trunk[0], net.trunk[2], net.heads["a"]] if layers else []:
        fully_shard(layer, mesh=over)
    return fully_shard(net, mesh=over)


def gathered(tensor: Tensor) -> Tensor:
    return tensor.detach().full_tensor()


def weights(method: str, heads: str, mesh: Sequence[int] | None, layers: bool = True, broken: bool = False) -> Any:
    """After training, on one rank or, without a mesh, in one process; and the result of one more backward."""
    net, x = model(), batches(STEPS + 1)
    rank = 0 if mesh is None else torch.distributed.get_rank()
    wrapped = net if mesh is None else sharded(net, mesh, layers)
    balancer = Balancer(METHODS[method](), task_only=heads, parameters=wrapped)

    def losses(step: int) -> dict[str, Tensor]:
        found = joint(net, x[step], EVERYWHERE) if mesh is None else wrapped(x[step, rank], EVERYWHERE[rank][::-1])
        return {task: loss * (torch.nan if broken and task == "b" and rank == 0 else 1) for task, loss in found.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupwiseWarning)
        trained(net, balancer, losses, STEPS)
        result = balancer.backward(losses(STEPS))
    found = {name: p.detach() if mesh is None else gathered(p) for name, p in net.named_parameters()}
    return found, result.weights, result.cosines


def _weights(*arguments: Any) -> Any:
    return weights(*arguments)


def same(two: Ranks, *arguments: Any) -> None:
    """The ranks agree bit by bit, and with one process within rounding."""
    mesh = arguments[2]
    first, other = two(_weights, *arguments)
    alone = weights(*arguments[:2], None, *arguments[3:])
    assert mesh is not None
    for ours, theirs, expected in zip(first, other, alone, strict=True):
        assert list(ours) == list(theirs)
        assert ours.keys() == expected.keys()
        for name in expected:
            assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name]))
            torch.testing.assert_close(ours[name], expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("method", METHODS)
def test_parts_of_rows_make_the_update_of_whole_ones(two: Ranks, method: str, heads: str) -> None:
    same(two, method, heads, (2,))


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_a_broken_task_is_left_out_on_all_ranks(two: Ranks, heads: str) -> None:
    same(two, "CAGrad", heads, (2,), True, True)
    same(two, "losses", heads, (2,), True, True)


def test_one_module_for_all_and_replicated_parts(two: Ranks) -> None:
    same(two, "CAGrad", "unweighted", (2,), False)
    same(two, "CAGrad", "unweighted", (2, 1))
    same(two, "CAGrad", "unweighted", (1, 2))


@pytest.mark.parametrize("method", ["CAGrad", "losses"])
def test_micro_batches_a_scaler_and_gradients_that_are_there(two: Ranks, method: str) -> None:
    first, other = two(_accumulated, method)
    assert all(torch.equal(first[name], other[name]) for name in first)
    for name, expected in accumulated(method, None).items():
        torch.testing.assert_close(first[name], expected, rtol=1e-10, atol=1e-12)


def accumulated(method: str, rank: int | None) -> dict[str, Tensor]:
    net, x = model(), batches(3)
    wrapped = net if rank is None else sharded(net)
    balancer = Balancer(METHODS[method](), parameters=wrapped)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def losses(step: int, tasks: Sequence[str]) -> dict[str, Tensor]:
        has = {0: tuple(tasks), 1: tuple(tasks)}
        return joint(net, x[step], has) if rank is None else wrapped(x[step, rank], tasks)

    torch.stack([*losses(0, "abc").values()]).sum().backward()
    balancer.accumulate(losses(1, "ca"), scaler=scaler)
    balancer.backward(losses(2, "ab"), scaler=scaler)
    return {name: p.grad if rank is None else gathered(p.grad) for name, p in net.named_parameters()}


def _accumulated(method: str) -> dict[str, Tensor]:
    return accumulated(method, torch.distributed.get_rank())


def test_what_parts_do_not_allow_is_an_error_on_every_rank(two: Ranks) -> None:
    for said in two(_refused):
        assert said["jacobian"].startswith("GradDrop looks at the entries of whole rows")
        assert "missing on some: 'b' (on 1 of 2), 'c' (on 1 of 2)" in said["gramian, tasks differ"]
        assert "missing on some: 'b' (on 1 of 2), 'c' (on 1 of 2)" in said["losses, tasks differ"]
        assert "at= is not there under fully_shard" in said["at="]
        assert "learn() is not there under fully_shard" in said["learn"]
        assert "give the outermost fully_shard module" in said["an inner module"]
        assert "give the outermost fully_shard module" in said["without sync"]
        assert said["afterwards"] == "nothing was said"


def _refused() -> dict[str, str]:
    net, x = sharded(model()), batches(1)[0, torch.distributed.get_rank()]
    partly = ("a", "b") if torch.distributed.get_rank() == 0 else ("a", "c")
    said = {"jacobian": message(lambda: Balancer(GradDrop(), parameters=net))}

    def backward(balancer: Balancer, tasks: Sequence[str] = "abc") -> str:
        # every head runs, or the forward itself would not have the same collectives on all ranks
        return message(lambda: balancer.backward({task: loss for task, loss in net(x, "abc").items() if task in tasks}))

    balancer = Balancer(CAGrad(), parameters=net)
    said["gramian, tasks differ"] = backward(balancer, partly)
    said["losses, tasks differ"] = backward(Balancer(METHODS["losses"](), parameters=net), partly)
    said["at="] = backward(Balancer(CAGrad(), parameters=net, at=net.trunk[2]))
    said["learn"] = message(lambda: Balancer(AutoLambda(), parameters=net).learn(net(x, "abc")))
    said["an inner module"] = backward(Balancer(CAGrad(), parameters=net.trunk[0]))
    net.set_requires_gradient_sync(False)
    said["without sync"] = backward(balancer)
    net.set_requires_gradient_sync(True)
    said["afterwards"] = backward(balancer)
    return said


def test_a_group_of_one_rank_is_a_group(two: Ranks) -> None:
    for found, said in two(_alone):
        assert all("pass parameters= the outermost fully_shard module" in message for message in said)
        net = model()
        Balancer(CAGrad()).backward(net(batches(1)[0, 0], "abc"))
        for name, p in net.named_parameters():
            torch.testing.assert_close(found[name], p.grad, rtol=1e-12, atol=1e-13)


def _alone() -> tuple[dict[str, Tensor], list[str]]:
    """Each rank is a mesh of its own."""
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "parts"))["parts"]
    net, x = fully_shard(model(), mesh=mesh), batches(1)[0, 0]
    Balancer(CAGrad(), parameters=net).backward(net(x, "abc"))
    found = {name: gathered(p.grad) for name, p in net.named_parameters()}
    untold = [Balancer(CAGrad(), distributed="local"), Balancer(PCGrad(), distributed="local", route="gramian")]
    said = [message(lambda b=b: b.backward(net(x, "abc"))) for b in untold]
    net = fully_shard(model(), mesh=mesh)
    return found, [*said, message(lambda: untold[0].accumulate(net(x, "abc")))]
