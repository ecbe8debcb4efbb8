"""Section b, the step itself, and section k: closures, absent gradients, and parameters that are swapped."""

import copy
import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.optim._stateless import swap_in_optimizer_params_and_state

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine
from tests.contract.mixes import (
    HIDDEN,
    MIX,
    MIXES,
    Mix,
    Net,
    assert_same,
    assert_unmoved,
    backward,
    batch,
    steps,
    train,
    weights,
)

mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


@mixes
def test_a_closure_is_evaluated_once_with_gradients_on_before_anything_is_read(mix: Mix) -> None:
    ours, theirs = mix.net(), mix.net()
    optimizer = mix.optimizer(ours)
    graded: list[bool] = []

    def closure() -> float:
        graded.append(torch.is_grad_enabled())
        return float(backward(ours, len(graded)).detach())

    with torch.no_grad():
        losses = [optimizer.step(closure), optimizer.step(closure=closure)]
    expected = [float(backward(mix.net(), 1).detach())]
    train(theirs, [1, 2], steps(mix.separate(theirs)))
    assert graded == [True, True]
    assert losses[:1] == pytest.approx(expected)
    assert_same(ours, theirs)


def test_a_closure_may_return_anything_and_none_is_returned_without_one() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    loss = torch.tensor(3.0)
    assert optimizer.step(lambda: loss) is loss  # type: ignore[arg-type, return-value]
    assert optimizer.step() is None


@mixes
def test_without_gradients_nothing_moves_and_no_state_is_made(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    before = weights(net)
    optimizer.step()
    assert_unmoved(net, before)
    assert all(p.grad is None for p in net.parameters())
    assert len(optimizer.state) == 0


@mixes
def test_a_parameter_without_gradient_keeps_none_and_gets_no_state(mix: Mix) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    before = net.head.bias.detach().clone()
    for seed in range(3):
        backward(net, seed)
        net.head.bias.grad = None
        optimizer.step()
    assert net.head.bias.grad is None
    assert net.head.bias not in optimizer.state
    assert torch.equal(net.head.bias, before)


def test_a_parameter_that_does_not_require_gradients_is_left_alone() -> None:
    net = MIX.net()
    net.hidden.weight.requires_grad_(False)
    optimizer = MIX.optimizer(net)
    before = net.hidden.weight.detach().clone()
    train(net, range(3), optimizer.step)
    assert torch.equal(net.hidden.weight, before)
    assert not net.hidden.weight.requires_grad
    assert net.hidden.weight not in optimizer.state


def test_zero_gradients_move_what_decay_and_momentum_move_and_no_more() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    for net, step, zero in (
        (ours, optimizer.step, lambda: optimizer.zero_grad(set_to_none=False)),
        (theirs, steps(separate), lambda: [other.zero_grad(set_to_none=False) for other in separate]),
    ):
        train(net, [0], step)
        zero()
        step()
    assert_same(ours, theirs)


def test_zero_grad_clears_every_groups_gradients() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    backward(net, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_unused_parameters_of_a_plan_that_is_scheduled_warn_once_without_a_scheduler() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-3))]))
    train(net, [0], optimizer.step)
    with pytest.warns(GroupwiseWarning, match="no PlanScheduler is attached"):
        train(net, [1], optimizer.step)
    train(net, [2], optimizer.step)


@mixes
def test_parameters_swapped_by_position_are_stepped(mix: Mix) -> None:
    """Accelerate's FSDP2 path: placeholders first, then new tensors, group by group and place by place."""
    ours, theirs = mix.net(), mix.net()
    optimizer, separate = mix.optimizer(ours), mix.separate(theirs)
    places = {id(p): (group, i) for group in optimizer.param_groups for i, p in enumerate(group["params"])}
    names = {id(p): name for name, p in ours.named_parameters()}
    owners = {names[key]: place for key, place in places.items()}
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"]):
            group["params"][i] = torch.empty(1, dtype=p.dtype)
    for name, p in list(ours.named_parameters()):
        module, _, leaf = name.rpartition(".")
        fresh = nn.Parameter(p.detach().clone())
        setattr(ours.get_submodule(module), leaf, fresh)
        group, i = owners[name]
        group["params"][i] = fresh
    train(ours, range(4), optimizer.step)
    train(theirs, range(4), steps(separate))
    assert_same(ours, theirs)


def test_a_new_list_of_parameters_is_saved_and_loaded_by_name() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(p.detach().clone()) for p in group["params"]]
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    again = MIX.net()
    resumed = MIX.optimizer(again)
    resumed.load_state_dict(optimizer.state_dict())
    swapped = {
        name: p
        for group in optimizer.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
    }
    for name, p in again.named_parameters():
        torch.testing.assert_close(resumed.state[p], optimizer.state[swapped[name]], rtol=0, atol=0)


@mixes
def test_the_step_runs_on_parameters_and_state_swapped_in_for_a_while(mix: Mix) -> None:
    """`torch.optim._stateless`: other tensors and other state, and everything as before afterwards."""
    ours, theirs = mix.net(), mix.net()
    optimizer, whole = mix.optimizer(ours), mix.optimizer(theirs)
    train(ours, range(2), optimizer.step)
    train(theirs, range(2), whole.step)
    before, saved = weights(ours), copy.deepcopy(optimizer.state_dict())
    listed = [name for group in optimizer.param_groups for name in group["param_names"]]
    other = {name: before[name].clone().requires_grad_() for name in listed}
    backward(theirs, 2)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    whole.step()
    with swap_in_optimizer_params_and_state(optimizer, other, copy.deepcopy(saved)):
        for name, p in other.items():
            p.grad = gradients[name]
        optimizer.step()
    expected = weights(theirs)
    for name, p in other.items():
        torch.testing.assert_close(p.detach(), expected[name], rtol=0, atol=1e-6)
    assert_unmoved(ours, before)
    assert optimizer.state_dict()["param_groups"] == saved["param_groups"]
    torch.testing.assert_close(optimizer.state_dict()["state"], saved["state"], rtol=0, atol=0)


def test_a_learning_rate_that_is_a_tensor_is_obeyed_and_edited_in_place() -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer, separate = MIX.optimizer(ours), MIX.separate(theirs)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    for seed in range(4):
        train(ours, [seed], optimizer.step)
        train(theirs, [seed], steps(separate))
        for group in optimizer.param_groups:
            group["lr"].mul_(0.5)
        for group in (g for one in separate for g in one.param_groups):
            group["lr"] *= 0.5
    assert_same(ours, theirs)


KERNELS: dict[str, tuple[dict[str, bool], str]] = {
    "foreach": ({"foreach": True}, "multi_tensor"),
    "for loop": ({"foreach": False}, "single_tensor"),
    "fused": ({"fused": True}, "fused"),
    "not fused": ({"fused": False}, "single_tensor"),
    "nothing": ({"maximize": True}, "fused"),
}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of torch's kernels that have run."""
    ran: list[str] = []

    def spied(module: ModuleType, name: str) -> None:
        inner: Callable[..., None] = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: (ran.append(name), inner(*a, **k))[1])

    for kind in ("single_tensor", "multi_tensor", "fused"):
        for algorithm in ("sgd", "adam"):
            spied(importlib.import_module(f"torch.optim.{algorithm}"), f"_{kind}_{algorithm}")
    return ran


@pytest.mark.parametrize(("flags", "kind"), KERNELS.values(), ids=KERNELS)
def test_the_kernel_that_the_plan_names_is_the_one_that_runs(
    flags: dict[str, bool], kind: str, kernels: list[str]
) -> None:
    ours, theirs = MIX.net(), MIX.net()
    optimizer = GroupedOptimizer(ours, Plan([*MIX.plan.rules, Rule("*", **flags)]))
    kernels.clear()  # the trial of the plan ran some
    train(ours, [0], optimizer.step)
    assert sorted(kernels) == [f"_{kind}_adam", f"_{kind}_sgd"]
    separate = MIX.separate(theirs)
    for one in separate:
        one.param_groups[0].update(flags)
    train(theirs, [0], steps(separate))
    assert_same(ours, theirs)


def test_a_kernel_is_chosen_for_the_step_alone() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    train(net, range(2), optimizer.step)
    assert {group["fused"] for group in optimizer.param_groups} == {None}


def test_parameters_of_odd_shapes_are_stepped_as_alone() -> None:
    def made() -> nn.ParameterDict:
        torch.manual_seed(0)
        held = {
            "scalar": torch.randn(()),
            "empty": torch.empty(0, 3),
            "strided": torch.randn(4, 6)[:, ::2],
            "one": torch.randn(1),
            "cube": torch.randn(2, 3, 4),
        }
        return nn.ParameterDict({name: nn.Parameter(t) for name, t in held.items()})

    ours, theirs = made(), made()
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.1), Rule("s*", optimizer="SGD", lr=0.1, momentum=0.9)])
    optimizer = GroupedOptimizer(ours, plan)
    separate = [
        torch.optim.AdamW([theirs["empty"], theirs["one"], theirs["cube"]], lr=0.1),
        torch.optim.SGD([theirs["scalar"], theirs["strided"]], lr=0.1, momentum=0.9),
    ]
    for seed in range(4):
        for net, step in ((ours, optimizer.step), (theirs, steps(separate))):
            generator = torch.Generator().manual_seed(seed)
            for p in net.values():
                p.grad = torch.randn(p.shape, generator=generator)
            step()
    assert_same(ours, theirs)


def test_complex_parameters_are_stepped_as_alone() -> None:
    def made() -> nn.ParameterDict:
        torch.manual_seed(0)
        wave = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))
        return nn.ParameterDict({"wave": wave, "phase": nn.Parameter(torch.randn(3, dtype=torch.complex64))})

    ours, theirs = made(), made()
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.1), Rule("wave", optimizer="SGD", lr=0.1, momentum=0.9)])
    optimizer = GroupedOptimizer(ours, plan)
    separate = [torch.optim.AdamW([theirs["phase"]], lr=0.1), torch.optim.SGD([theirs["wave"]], lr=0.1, momentum=0.9)]
    for seed in range(4):
        for net, step in ((ours, optimizer.step), (theirs, steps(separate))):
            generator = torch.Generator().manual_seed(seed)
            for p in net.values():
                p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            step()
    for name, p in ours.items():
        torch.testing.assert_close(p, theirs[name])


def test_printing_names_every_group_and_its_algorithm() -> None:
    text = repr(MIX.optimizer(MIX.net()))
    assert text.startswith("GroupedOptimizer (")
    assert "algorithm: AdamW" in text
    assert "algorithm: SGD" in text
    assert HIDDEN[0] in text


def test_a_net_is_kept_apart_from_its_optimizer() -> None:
    net = Net()
    MIX.optimizer(net)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert batch(0)[0].shape == (12, 3)
