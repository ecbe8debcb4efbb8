"""The laws of optimizer classes: under `GroupedOptimizer`, a class does what it does alone.

A class runs on a slice of the groups and the state of `GroupedOptimizer`. It must therefore keep all that it knows in
`param_groups` and `state`: a counter in an attribute, or a buffer beside them, is lost by a save or shared by groups
that do not share it. The model under test is five small layers; the class has the second and the third, the latter at
half the rate, between layers under AdamW. Gradients are random; a class that draws numbers is given the same ones.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from groupwise.errors import LawBroken
from groupwise.optim import GroupedOptimizer
from groupwise.plan import Plan, Rule, scale
from groupwise.testing.law import Law, demand

WIDTH, FIRST, MIDDLE, LAST = 4, 6, 9, 12
_RATE = 1e-2
_ROUNDING = 1e-6

Class = type[Optimizer]


def optimizer_laws(cls: Class, hyperparameters: Mapping[str, Any] | None = None) -> Iterator[Law]:
    """Every law of optimizer classes, for one with these hyperparameters (by default a learning rate of 1e-2)."""
    arguments = {"lr": _RATE, **(hyperparameters or {})}
    laws: dict[str, Callable[[Class, Mapping[str, Any]], None]] = {
        "it steps as the class alone": _alone,
        "a copy of the whole goes on like the original": _copied,
        "what was saved, as plain data, goes on like the original": _saved,
        "a parameter without a gradient stays where it is": _absent,
    }
    for name, search in laws.items():
        yield Law(cls.__name__, name, _bound(search, cls, arguments))


def _bound(
    search: Callable[[Class, Mapping[str, Any]], None], cls: Class, arguments: Mapping[str, Any]
) -> Callable[[], None]:
    return lambda: search(cls, arguments)


def _net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(5)))


def _grouped(cls: Class, arguments: Mapping[str, Any], net: nn.Sequential) -> GroupedOptimizer:
    base = Rule("*", optimizer="AdamW", lr=_RATE)
    own, slow = Rule(["1.*", "2.*"], optimizer=cls, **arguments), Rule("2.*", lr=scale(0.5))
    return GroupedOptimizer(net, Plan([base, own, slow]))


def _plain(cls: Class, arguments: Mapping[str, Any], net: nn.Sequential) -> list[Optimizer]:
    rates = {1: arguments["lr"], 2: 0.5 * arguments["lr"]}
    groups = [{**arguments, "params": [*net[i].parameters()], "lr": rate} for i, rate in rates.items()]
    build: Callable[..., Optimizer] = cls
    return [build(groups, **arguments), AdamW([p for i in (0, 3, 4) for p in net[i].parameters()], lr=_RATE)]


def _run(net: nn.Module, seeds: range, optimizers: list[Optimizer], without: tuple[str, ...] = ()) -> None:
    for optimizer in optimizers:
        _mode(optimizer, "train")
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in net.named_parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = None if name in without else gradient
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for optimizer in optimizers:
                optimizer.step()


def _mode(optimizer: Optimizer, mode: str) -> None:
    switch = getattr(optimizer, mode, None)
    if callable(switch):
        switch()


def _same(ours: nn.Module, theirs: nn.Module, what: str) -> None:
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        off = (parameter - expected[name]).abs().max().item()
        limit = _ROUNDING * max(1.0, expected[name].abs().max().item())
        demand(off <= limit, f"{what}: '{name}' is off by {off:.3g}")


def _alone(cls: Class, arguments: Mapping[str, Any]) -> None:
    ours, theirs = _net(), _net()
    _run(ours, range(LAST), [_grouped(cls, arguments, ours)])
    _run(theirs, range(LAST), _plain(cls, arguments, theirs))
    _same(ours, theirs, f"after {LAST} steps beside AdamW")


def _copied(cls: Class, arguments: Mapping[str, Any]) -> None:
    net = _net()
    optimizer = _grouped(cls, arguments, net)
    _run(net, range(FIRST), [optimizer])
    copied, twin = copy.deepcopy((net, optimizer))
    _run(net, range(FIRST, MIDDLE), [optimizer])
    _run(copied, range(FIRST, MIDDLE), [twin])
    _same(copied, net, f"{MIDDLE - FIRST} steps after a deepcopy")


def _saved(cls: Class, arguments: Mapping[str, Any]) -> None:
    net = _net()
    optimizer = _grouped(cls, arguments, net)
    _run(net, range(FIRST), [optimizer])
    other = copy.deepcopy(net)
    resumed = _grouped(cls, arguments, other)
    resumed.load_state_dict(_through_a_file(optimizer.state_dict()))
    _run(net, range(FIRST, MIDDLE), [optimizer])
    _run(other, range(FIRST, MIDDLE), [resumed])
    _same(other, net, f"{MIDDLE - FIRST} steps after a load")


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
    except UnpicklingError as error:
        reason = str(error).rpartition("error: ")[2].partition("\n")[0]
        raise LawBroken(f"its state is no plain data, a load with weights_only=True refuses it: {reason}") from None
    return loaded


def _absent(cls: Class, arguments: Mapping[str, Any]) -> None:
    net = _net()
    optimizer = _grouped(cls, arguments, net)
    bias = dict(net.named_parameters())["1.bias"]
    before = bias.detach().clone()
    _run(net, range(FIRST), [optimizer], without=("1.bias",))
    demand(torch.equal(bias, before), "'1.bias' had no gradient, and moved")
