"""The model changes under the balancer: the next update is that of a balancer that was built just then, or an error.

Every edit on every route, in a process of its own, so that a write outside memory would be seen.
"""

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groupwise.balance import (
    MGDA,
    AutoLambda,
    Balancer,
    CAGrad,
    FromGramian,
    FromJacobian,
    GradDrop,
    GradNorm,
    Method,
    MoCo,
    Periodic,
    Static,
)
from groupwise.errors import BalanceError
from tests.balance.engine.reference import crooked


class Net(nn.Module):
    """A trunk of two layers with a convolution behind them, and two heads; `width` entries between the layers."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 12)
        self.conv = nn.Conv2d(3, 2, 2)
        self.heads = nn.ModuleDict({name: nn.Linear(2, 1) for name in "ab"})
        self.double()

    def features(self) -> Tensor:
        x = torch.linspace(-1, 1, 20).view(5, 4).to(self.first.weight)
        wide = self.second(self.first(x).tanh().to(self.second.weight)).tanh()
        found: Tensor = self.conv(wide.view(5, 3, 2, 2).to(self.conv.weight)).flatten(1)
        return found

    def losses(self, z: Tensor | None = None) -> dict[str, Tensor]:
        z = self.features() if z is None else z
        pairs = enumerate(self.heads.items())
        return {name: (head(z.to(head.weight)).double() - i).square().mean() for i, (name, head) in pairs}


def _resize(net: Net, width: int) -> None:
    other = Net(width)
    for name in ("first", "second"):
        for key, p in getattr(net, name).named_parameters():
            p.data = getattr(other, name).get_parameter(key).data.clone()
            p.grad = None


def _swap(net: Net) -> None:
    other = Net(9)
    for name in ("first", "second"):
        for key, p in getattr(net, name).named_parameters():
            torch.utils.swap_tensors(p, getattr(other, name).get_parameter(key))


def _replace(net: Net) -> None:
    net.second.weight = nn.Parameter(torch.full_like(net.second.weight, 0.3))


def _replace_module(net: Net) -> None:
    torch.manual_seed(8)
    net.first, net.second = nn.Linear(4, 3).double(), nn.Linear(3, 12).double()


EDITS: dict[str, Callable[[Net], object]] = {
    "grown": lambda net: _resize(net, 9),
    "pruned": lambda net: _resize(net, 2),
    "swapped": _swap,
    "retyped": lambda net: (net.zero_grad(), net.second.to(torch.float32)),
    "another data": lambda net: setattr(net.first.weight, "data", torch.full_like(net.first.weight, 0.2)),
    "transposed in memory": lambda net: setattr(net.second.weight, "data", net.second.weight.data.t().contiguous().t()),
    "channels last": lambda net: net.conv.to(memory_format=torch.channels_last),
    "a parameter replaced": _replace,
    "a module replaced": _replace_module,
    "frozen": lambda net: net.second.requires_grad_(False),
    "thawed": lambda net: net.conv.requires_grad_(True),
    "a head replaced": lambda net: net.heads.update({"b": nn.Linear(2, 1).double()}),
}
ROUTES: dict[str, tuple[Callable[[], Method], dict[str, Any]]] = {
    "weighted": (lambda: Static({"a": 1.0, "b": 3.0}), {}),
    "weighted apart": (lambda: Static({"a": 1.0, "b": 3.0}), {"task_only": "unweighted"}),
    "sequential": (lambda: FromGramian(crooked), {"route": "sequential"}),
    "columns": (lambda: FromJacobian(lambda j: crooked(j @ j.T) @ j), {}),
    "gramian": (lambda: FromGramian(crooked), {"route": "gramian"}),
    "layer": (lambda: FromGramian(crooked), {"at": "conv"}),
    "features": (lambda: FromGramian(crooked), {"route": "features"}),
    "features given": (lambda: FromGramian(crooked), {}),
    "accumulated": (lambda: FromGramian(crooked), {}),
    "columns accumulated": (lambda: FromJacobian(lambda j: crooked(j @ j.T) @ j), {}),
    "weighted at once": (lambda: Static({"a": 1.0, "b": 3.0}), {}),
}


def update(route: str, balancer: Balancer, net: Net) -> None:
    if route == "features given":
        z = net.features()
        balancer.backward(net.losses(z), features=z)
    elif route in {"accumulated", "columns accumulated", "weighted at once"}:
        balancer.accumulate(net.losses())
        balancer.backward(net.losses())
    else:
        balancer.backward(net.losses())


def compare(route: str, edit: str, named: bool) -> None:
    """An old balancer and one that is new after the edit, on equal models."""
    make, arguments = ROUTES[route]
    used, fresh = Net(), Net()
    for net in (used, fresh):
        net.conv.requires_grad_(edit != "thawed")
    if edit == "thawed" and route == "layer":
        arguments = {"at": "second"}
    at_needs = "at" in arguments

    def balancer(net: Net) -> Balancer:
        return Balancer(make(), parameters=net if named or at_needs else None, **arguments)

    old = balancer(used)
    for _ in range(2):
        update(route, old, used)
    torch.manual_seed(1)
    EDITS[edit](used)
    torch.manual_seed(1)
    EDITS[edit](fresh)
    used.zero_grad()
    fresh.zero_grad()
    update(route, old, used)
    update(route, balancer(fresh), fresh)
    for (name, one), (_, other) in zip(used.named_parameters(), fresh.named_parameters(), strict=True):
        if (one.grad is None) != (other.grad is None) or (
            one.grad is not None and not torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
        ):
            raise AssertionError(f"{edit}, {route}, named {named}: {name} has {one.grad}, not {other.grad}")


def test_after_any_edit_every_route_does_what_a_new_balancer_does() -> None:
    """In a process of its own: what is written outside memory ends a process, at once or at its exit."""
    code = (
        "from tests.balance.engine.test_surgery import EDITS, ROUTES, compare\n"
        "import torch; torch.set_num_threads(1)\n"
        "for route in ROUTES:\n    for edit in EDITS:\n        for named in (False, True):\n"
        "            compare(route, edit, named)\n"
        "import gc; gc.collect()\n"
        "import sys; sys.stdout.write('all of them')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "all of them"), done.stderr[-2000:]


@pytest.mark.parametrize("make", [GradDrop, MGDA, MoCo, CAGrad, lambda: Periodic(CAGrad(), 2)])
@pytest.mark.parametrize("named", [False, True])
def test_parameters_that_are_gone_are_let_go(make: Callable[[], Method], named: bool) -> None:
    net = Net()
    balancer = Balancer(make(), parameters=net if named else None)
    gone = []
    for _ in range(3):
        balancer.backward(net.losses())
        gone.append(weakref.ref(net.second.weight))
        net.zero_grad()
        _replace(net)
        gc.collect()
        assert [there() for there in gone] == [None] * len(gone)  # at once, not at the next update
    balancer.backward(net.losses())
    assert sum(held.numel() for held in balancer._state.buffers._held.values()) <= 2 * sum(
        p.numel() for p in net.parameters()
    )


def test_rows_of_another_dtype_are_let_go() -> None:
    net = Net()
    balancer = Balancer(CAGrad())

    def losses() -> dict[str, Tensor]:
        two = net.losses()
        return {**two, "both": sum(two.values())}

    balancer.backward(losses())
    net.float()
    net.zero_grad()
    balancer.backward(losses())
    assert {dtype for _, dtype in balancer._state.buffers._held} == {torch.float32}


def test_a_balancer_alone_keeps_no_model_alive() -> None:
    net = Net()
    balancer = Balancer(MoCo())
    there = weakref.ref(net.first.weight)
    balancer.accumulate(net.losses())
    balancer.backward(net.losses())
    result = balancer.backward(net.losses())
    assert result.shares is not None
    del net, result
    gc.collect()
    assert there() is None


def test_tensors_that_were_given_one_by_one_and_are_gone_are_an_error() -> None:
    net = Net()
    balancer = Balancer(CAGrad(), parameters=list(net.parameters()))
    balancer.backward(net.losses())
    _replace(net)
    gc.collect()
    with pytest.raises(BalanceError, match=r"parameters= holds a tensor that is gone .* give the module"):
        balancer.backward(net.losses())
    layered = Balancer(GradNorm(), at=net.conv.weight)
    net.conv.weight = nn.Parameter(net.conv.weight.detach().clone())
    gc.collect()
    with pytest.raises(BalanceError, match="at= holds a tensor that is gone"):
        layered.backward(net.losses())


def test_a_layer_that_is_frozen_is_an_error_until_it_thaws() -> None:
    net = Net()
    balancer = Balancer(GradNorm(), at=net.second)
    net.second.requires_grad_(False)
    with pytest.raises(BalanceError, match="at= has no parameter that requires grad"):
        balancer.backward(net.losses())
    net.second.requires_grad_(True)
    balancer.backward(net.losses())


def test_an_edit_between_micro_batches_is_an_error_until_they_are_discarded() -> None:
    for edit in ("grown", "pruned", "retyped", "a parameter replaced"):
        net = Net()
        balancer = Balancer(CAGrad())
        balancer.accumulate(net.losses())
        EDITS[edit](net)
        gc.collect()
        for call in (balancer.backward, balancer.accumulate):
            if call == balancer.backward or edit != "a parameter replaced":
                with pytest.raises(BalanceError, match=r"balancer\.discard\(\) drops what was accumulated"):
                    call(net.losses())
        balancer.discard()
        balancer.backward(net.losses())


def test_an_edit_between_learning_and_the_update_is_an_error() -> None:
    net = Net()
    balancer = Balancer(AutoLambda())
    balancer.learn(net.losses())
    _resize(net, 9)
    with pytest.raises(BalanceError, match=r"had the shape \[.*\] at learn\(\)"):
        balancer.backward(net.losses())
    balancer.learn(net.losses())
    balancer.backward(net.losses())


@pytest.mark.parametrize("left", [(1, 4), (3, 4)])
def test_a_gradient_of_another_shape_is_an_error_and_stays_as_it_is(left: tuple[int, int]) -> None:
    """`.grad` stays behind where `.data` is replaced, and a row would be added to all rows without a word."""
    net = Net()
    balancer = Balancer(CAGrad())
    balancer.backward(net.losses())
    net.zero_grad()
    data, net.first.weight.data = net.first.weight.data, torch.ones(left, dtype=torch.float64)
    net.first.weight.grad = stale = torch.full(left, 2.0, dtype=torch.float64)
    net.first.weight.data = data
    with pytest.raises(BalanceError, match=r"^the \.grad of a parameter of shape \[6, 4\] has the shape"):
        balancer.backward(net.losses())
    assert net.first.weight.grad is stale
    assert bool((stale == 2).all())
    assert net.second.weight.grad is None
    net.zero_grad()
    balancer.backward(net.losses())
