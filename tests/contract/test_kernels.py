"""Which kernels run, and that the choice shows in no number: fused ones are taken where they are sound."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule
from tests.contract.mixes import MIX, assert_same, steps, train

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


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "contiguous": lambda: torch.randn(12, 8),
    "transposed": lambda: torch.randn(8, 12).t(),
    "with gaps": lambda: torch.randn(12, 16)[:, ::2],
    "a slice": lambda: torch.randn(12, 16)[:, :8],
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
}
GRADIENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda p: torch.randn(p.shape),
    "laid out as the parameter": lambda p: torch.empty_strided(p.shape, p.stride()).copy_(torch.randn(p.shape)),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize("algorithm", ["SGD", "AdamW"])
def test_strides_of_parameter_and_gradient_show_in_no_number(
    layout: Callable[[], torch.Tensor], gradient: Callable[[torch.Tensor], torch.Tensor], algorithm: str
) -> None:
    """Torch's fused kernels on a CPU read plain memory, whatever the strides."""

    def made() -> nn.ParameterDict:
        torch.manual_seed(0)
        return nn.ParameterDict({"p": nn.Parameter(layout())})

    ours, theirs = made(), made()
    given = {"momentum": 0.9} if algorithm == "SGD" else {}
    optimizer = GroupedOptimizer(ours, Plan([Rule("*", optimizer=algorithm, lr=0.1, **given)]))
    plain = getattr(torch.optim, algorithm)(theirs.parameters(), lr=0.1, foreach=False, **given)
    for seed in range(4):
        for net, one in ((ours, optimizer), (theirs, plain)):
            torch.manual_seed(seed)
            net["p"].grad = gradient(net["p"])
            one.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [3, 16, 70])
def test_sgd_in_half_precision_moves_every_entry(dtype: torch.dtype, size: int) -> None:
    """Torch's fused SGD on a CPU skips whole vectors of them (pytorch#191763)."""
    net = nn.ParameterDict({"p": nn.Parameter(torch.zeros(size, dtype=dtype))})
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer="SGD", lr=1.0)]))
    net["p"].grad = torch.ones_like(net["p"])
    optimizer.step()
    assert torch.equal(net["p"], torch.full_like(net["p"], -1.0))


def test_state_laid_out_otherwise_than_its_parameter_is_used_as_it_is() -> None:
    """A checkpoint from before `model.to(memory_format=torch.channels_last)`."""
    plan = Plan([Rule("*", optimizer="AdamW", lr=0.1)])
    ours, theirs = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    theirs.load_state_dict(ours.state_dict())
    runs = []
    for net, moved in ((ours, True), (theirs, False)):
        optimizer = GroupedOptimizer(net, plan)
        give(net, 0)
        optimizer.step()
        if moved:
            saved = optimizer.state_dict()
            net.to(memory_format=torch.channels_last)
            optimizer = GroupedOptimizer(net, plan)
            optimizer.load_state_dict(saved)
        give(net, 1)
        optimizer.step()
        runs.append(optimizer)
    assert not ours.weight.is_contiguous()
    assert_same(ours, theirs)


def give(net: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for p in net.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape))
