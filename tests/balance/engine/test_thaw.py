"""Layers that thaw and freeze in mid-run under methods that remember something of parameters."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from groupwise.balance import (
    DBMTL,
    Balancer,
    ExcessMTL,
    Memory,
    MetaBalance,
    Method,
    MethodContext,
    MoCo,
    Normalized,
)
from groupwise.errors import BalanceError
from tests.balance.engine.models import batch

REMEMBER: dict[str, Callable[[], Method]] = {
    "MetaBalance": lambda: MetaBalance(primary="a"),
    "MetaBalance, first seen": MetaBalance,
    "DBMTL": DBMTL,
    "MoCo": MoCo,
    "ExcessMTL": ExcessMTL,
    "Normalized(MoCo)": lambda: Normalized(MoCo()),
}
methods = pytest.mark.parametrize("make", REMEMBER.values(), ids=REMEMBER)
named = pytest.mark.parametrize("named", [False, True], ids=["by order", "by name"])


class Net(nn.Module):
    """Three layers of one shape each, so that nothing but its name tells one from the other, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "ab"})
        self.double()

    def losses(self, step: int, tasks: str = "ab") -> dict[str, Tensor]:
        z = batch(5, 4) * (1 + 0.1 * step)
        for layer in self.layers:
            z = layer(z).tanh()
        return {name: (self.heads[name](z) - ord(name) + 96).square().mean() + 0.1 for name in tasks}


def trained(net: Net, balancer: Balancer, steps: range, trains: Callable[[int], tuple[int, ...]]) -> list[Tensor]:
    """Some steps in which the layers of `trains(step)` train; every gradient."""
    optimizer, found = torch.optim.SGD(net.parameters(), lr=0.05), []
    for step in steps:
        for i, layer in enumerate(net.layers):
            layer.requires_grad_(i in trains(step))
        optimizer.zero_grad()
        balancer.backward(net.losses(step))
        optimizer.step()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    return found


def remembered(balancer: Balancer, key: str, task: str) -> dict[str, Tensor]:
    """What is kept of each parameter, by its name."""
    rows = balancer.state_dict()["memory"]
    rows = rows["parts"]["inner"]["rows"] if rows["parts"] else rows["rows"]
    return {label.partition("|")[0]: piece for label, piece in rows[key][task].items()}


@named
@methods
def test_a_run_goes_on_when_layers_thaw_and_freeze(make: Callable[[], Method], named: bool) -> None:
    net = Net()
    balancer = Balancer(make(), parameters=net if named else None)
    found = trained(net, balancer, range(8), lambda step: ((2,), (1, 2), (0, 1, 2), (0, 2))[step // 2])
    assert all(bool(torch.isfinite(gradients).all()) for gradients in found)
    assert balancer.step == 8


@named
def test_what_is_known_of_a_layer_waits_while_it_is_frozen(named: bool) -> None:
    """The tracked gradient of the others is what it would be had the frozen layer never been there."""
    net = Net()
    balancer = Balancer(MoCo(beta=1.0, beta_decay=0.0), parameters=net if named else None)
    trained(net, balancer, range(1), lambda _: (0, 1, 2))
    before = remembered(balancer, "tracked gradient", "a")
    trained(net, balancer, range(1, 3), lambda _: (1, 2))
    after = remembered(balancer, "tracked gradient", "a")
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert len(before) == 6
    assert len(same) == 2  # the weight and the bias of the frozen layer
    if named:
        assert same == {"layers.0.weight", "layers.0.bias"}


@named
def test_a_layer_that_thaws_starts_afresh_and_disturbs_nobody(named: bool) -> None:
    """beta = 1 - 1/k would be a mean; with b constant the tracked gradient is a geometric sum, from its own first."""
    net = Net()
    balancer = Balancer(MoCo(beta=0.5, beta_decay=0.0), parameters=net if named else None)
    context: list[dict[str, Tensor]] = []
    for step in range(4):
        for i, layer in enumerate(net.layers):
            layer.requires_grad_(i > 0 or step > 1)
        net.zero_grad()
        loss = net.losses(step)["a"]
        names = {name: p for name, p in net.layers.named_parameters() if p.requires_grad}
        grads = torch.autograd.grad(loss, [*names.values()])
        context.append({f"layers.{name}": g.flatten() for name, g in zip(names, grads, strict=True)})
        balancer.backward(net.losses(step))
    expected: dict[str, Tensor] = {}
    for gradients in context:
        for name, gradient in gradients.items():
            expected[name] = 0.5 * expected.get(name, torch.zeros_like(gradient)) + 0.5 * gradient
    kept = remembered(balancer, "tracked gradient", "a")
    if named:
        assert kept.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(kept[name], gradient, rtol=1e-12, atol=1e-14)
    else:  # the same pieces, under numbers
        ours, theirs = (sorted(float(piece.norm()) for piece in some.values()) for some in (kept, expected))
        assert ours == pytest.approx(theirs, rel=1e-12)


@methods
def test_a_resumed_run_finds_what_is_known_of_each_layer(make: Callable[[], Method]) -> None:
    """Saved after a thaw, so that the order of first sight is not the order of the graph."""
    order = ((2,), (0, 2), (0, 1, 2), (0, 1, 2))
    for by_name in (False, True):
        nets = Net(), Net()
        whole, first = (Balancer(make(), parameters=net if by_name else None) for net in nets)
        expected = trained(nets[0], whole, range(6), lambda step: order[min(step, 3)])
        trained(nets[1], first, range(4), lambda step: order[step])
        second = Balancer(make(), parameters=nets[1] if by_name else None)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        found = trained(nets[1], second, range(4, 6), lambda _: order[3])
        assert all(torch.equal(one, other) for one, other in zip(found, expected[4:], strict=True))
        assert columns(second, nets[1]) == columns(whole, nets[0])
        fresh = nn.Linear(4, 4).double()
        nets[0].layers.append(fresh)
        nets[1].layers.append(copy.deepcopy(fresh))
        ends = [
            trained(net, balancer, range(6, 8), lambda _: (0, 1, 2, 3))
            for net, balancer in ((nets[0], whole), (nets[1], second))
        ]
        assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def columns(balancer: Balancer, net: Net) -> list[str]:
    """The names of the columns of one more update, in order."""
    names = {p: name for name, p in net.named_parameters()}
    return [names[p] for p in balancer.backward(net.losses(0)).shared]


def test_a_task_that_is_alone_makes_no_columns_of_its_head() -> None:
    for named in (False, True):
        net = Net()
        balancer = Balancer(MoCo(), parameters=net if named else None)
        for tasks in ("a", "ab", "a"):
            balancer.backward(net.losses(0, tasks))
        assert sorted(columns(balancer, net)) == sorted(f"layers.{name}" for name, _ in net.layers.named_parameters())


def test_a_resumed_run_with_other_layers_and_no_names_is_an_error() -> None:
    net = Net()
    first = Balancer(MoCo())
    trained(net, first, range(2), lambda _: (1, 2))
    second = Balancer(MoCo())
    second.load_state_dict(first.state_dict())
    with pytest.raises(BalanceError, match=r"remembers 4 shared parameters by their order, .* share 6, or others"):
        trained(net, second, range(1), lambda _: (0, 1, 2))
    trained(net, second, range(1), lambda _: (1, 2))  # the same as at the save: fine


@methods
def test_a_state_from_before_rows_were_kept_by_parameter_goes_on(make: Callable[[], Method]) -> None:
    """It has one vector for all parameters, in the order of the columns, and no "rows"."""
    nets = Net(), Net()
    whole, first = (Balancer(make(), parameters=net) for net in nets)
    expected = trained(nets[0], whole, range(4), lambda _: (0, 1, 2))
    trained(nets[1], first, range(2), lambda _: (0, 1, 2))
    state = first.state_dict()
    memory = state["memory"]["parts"].get("inner", state["memory"])
    for key, by_task in memory.pop("rows").items():
        memory["tasks"][key] = {task: torch.cat([*pieces.values()]) for task, pieces in by_task.items()}
    second = Balancer(make(), parameters=nets[1])
    second.load_state_dict(state)
    found = trained(nets[1], second, range(2, 4), lambda _: (0, 1, 2))
    assert all(torch.equal(one, other) for one, other in zip(found, expected[2:], strict=True))
    third = Balancer(make(), parameters=nets[1])
    third.load_state_dict(state)
    with pytest.raises(BalanceError, match="what is known of task 'a'"):
        trained(nets[1], third, range(1), lambda _: (1, 2))


@methods
def test_a_parameter_of_another_shape_starts_afresh(make: Callable[[], Method]) -> None:
    net = Net()
    balancer = Balancer(make(), parameters=net)
    trained(net, balancer, range(2), lambda _: (0, 1, 2))
    net.layers[1], net.layers[2] = nn.Linear(4, 7).double(), nn.Linear(7, 4).double()
    trained(net, balancer, range(2, 4), lambda _: (0, 1, 2))
    memory = balancer.state_dict()["memory"]
    rows = (memory["parts"].get("inner", memory))["rows"]
    labels = {label for by_task in rows.values() for pieces in by_task.values() for label in pieces}
    assert len(labels) == 6  # what was known of the old shapes is dropped


def test_micro_batches_and_the_joint_batch_teach_the_same() -> None:
    """A column that this update does not reach is a zero row in both."""
    for make in (MoCo, DBMTL, ExcessMTL, MetaBalance):
        nets = Net(), Net()
        joint, apart = (Balancer(make(), parameters=net.layers) for net in nets)
        for step in range(3):
            joint.backward(nets[0].losses(step))
            apart.accumulate({"a": nets[1].losses(step)["a"]})
            apart.backward({"b": nets[1].losses(step)["b"]})
            for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-13, atol=1e-15)


class _Columns:
    def __init__(self, **sizes: int) -> None:
        self.parameters, self.splits = tuple(sizes), tuple(sizes.values())


def test_rows_are_kept_by_parameter_and_task() -> None:
    memory = Memory()
    both, second = _Columns(x=2, y=1), _Columns(y=1, z=2)
    like = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(memory.of_rows("k", ["a", "b"], both, like), torch.zeros(2, 3).double())
    memory.keep_rows("k", ["a"], both, torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    memory.keep_rows("k", ["b"], second, torch.tensor([[4.0, 5.0, 6.0]], dtype=torch.float64))
    assert memory.of_rows("k", ["b", "a"], both, like).tolist() == [[0.0, 0.0, 4.0], [1.0, 2.0, 3.0]]
    assert memory.of_rows("k", ["a"], second, like.float()).dtype == torch.float32
    memory.keep_rows("k", ["a"], second, torch.tensor([[7.0, 8.0, 9.0]], dtype=torch.float64))
    assert memory.of_rows("k", ["a"], both, like).tolist() == [[1.0, 2.0, 7.0]]
    assert memory.of_rows("one each", ["a"], both, torch.zeros(2)).shape == (1, 2)
    assert memory.tasks() == {"a", "b"}
    memory.forget("a")
    assert memory.tasks() == {"b"}
    assert not bool(memory.of_rows("k", ["a"], both, like).any())
    with pytest.raises(BalanceError, match=r"what is known of task 'b' \(k\) has the shape \[1\], .* asks for \[2\]"):
        memory.of_rows("k", ["b"], _Columns(y=2), torch.zeros(2))


def test_what_is_kept_is_a_copy_and_what_is_given_out_too() -> None:
    memory, columns = Memory(), _Columns(x=2)
    mine = torch.ones(1, 2, dtype=torch.float64)
    memory.keep_rows("k", ["a"], columns, mine)
    memory.keep_run("r", mine[0])
    mine.zero_()
    memory.of_rows("k", ["a"], columns, mine[0]).zero_()
    memory.of_run("r", 0.0).zero_()
    assert memory.of_rows("k", ["a"], columns, mine[0]).tolist() == [[1.0, 1.0]]
    assert memory.of_run("r", 0.0).tolist() == [1.0, 1.0]


def test_a_frozen_layer_does_not_keep_the_memory_of_all_others() -> None:
    """What waits is copied out of the vector that it was a part of."""
    memory = Memory()
    memory.keep_rows("k", ["a"], _Columns(x=2, y=1000), torch.ones(1, 1002))
    memory.keep_rows("k", ["a"], _Columns(y=1000), torch.ones(1, 1000))
    waiting = memory.state_dict()["rows"]["k"]["a"]["x"]
    assert waiting.untyped_storage().nbytes() == 8


def test_a_copy_goes_its_own_way() -> None:
    memory = Memory(seed=4)
    memory.part("inner").keep_run("x", 1.0)
    other = memory.copy()
    assert torch.equal(torch.rand(3, generator=memory.generator), torch.rand(3, generator=other.generator))
    other.part("inner").keep_run("x", 2.0)
    assert float(memory.part("inner").of_run("x", 0.0)) == 1.0
    assert other.part("inner").generator is other.generator
    drawn = torch.rand(1, generator=other.part("inner").generator)
    assert torch.equal(drawn, torch.rand(1, generator=memory.generator))
    kept = memory.generator
    memory.load_state_dict(other.state_dict())
    assert memory.generator is kept is memory.part("inner").generator


def test_a_method_is_told_which_parameter_each_column_is_of() -> None:
    context: list[MethodContext] = []

    class Told(MoCo.__mro__[1]):  # type: ignore[misc, name-defined]
        def update(self, jacobian: Tensor, told: MethodContext, memory: Memory) -> Tensor:
            context.append(told)
            return jacobian.sum(0)

    net = Net()
    Balancer(Told(), parameters=net.layers).backward(net.losses(0))
    assert [label.partition("|")[0] for label in context[0].parameters] == [
        name for name, _ in net.layers.named_parameters()
    ]
    assert context[0].parameters[0] == "0.weight|4,4|4,1"
    assert context[0].splits == (16, 4) * 3
