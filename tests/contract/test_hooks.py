"""Section b, hooks: each fires once per step, in torch's order, whatever the engines do inside."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.errors import ResolutionError
from groupwise.optim.borrowed import engine_class
from tests.contract.mixes import ADAGRAD, MIX, NORM, Mix, assert_same, backward, steps, train, weights


class Averaged(torch.optim.SGD):
    """A class whose step calls its parent's, which is hooked a second time."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p].setdefault("first", p.detach().clone())
        return loss


class Unhooked(Optimizer):
    """A class with its own `step`, called before any instance of it has been hooked; it edits under `no_grad`."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad, alpha=group["lr"])


class Twice(Averaged):
    """Two steps deep, the one between through a mixin."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        return super().step(closure)


class Mixin:
    """No optimizer itself: a step in the line of somebody else's."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        return super().step(closure)  # type: ignore[misc, no-any-return]


class Mixed(Mixin, torch.optim.RMSprop):
    """A mixin in front of a class of torch."""


class ByName(torch.optim.SGD):
    """A class that calls its parent's step by name, where nothing can come between."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        return torch.optim.SGD.step(self, closure)


DELEGATING = Mix(
    Plan([Rule("*", optimizer="AdamW", lr=1e-2), Rule("norm.*", optimizer=Averaged, lr=0.1, momentum=0.9)]),
    [],
)


@pytest.fixture
def calls() -> Iterator[list[str]]:
    """What fired, the global hooks already registered."""
    heard: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: heard.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: heard.append("global post")),
    ]
    yield heard
    for handle in handles:
        handle.remove()


def under(cls: type[Optimizer]) -> Mix:
    return Mix(Plan([Rule("*", optimizer="AdamW", lr=1e-2), Rule("norm.*", optimizer=cls, lr=0.1)]), [])


@pytest.mark.parametrize(
    "mix",
    [MIX, ADAGRAD, DELEGATING, under(Twice), under(Mixed)],
    ids=["sgd+adamw", "adagrad", "step calls super().step", "twice", "a mixin"],
)
def test_global_and_own_hooks_fire_once_per_step_in_torchs_order(mix: Mix, calls: list[str]) -> None:
    net = mix.net()
    optimizer = mix.optimizer(net)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    train(net, range(2), optimizer.step)
    assert calls == ["global pre", "pre", "post", "global post"] * 2


def test_hooks_see_the_optimizer_itself_and_the_arguments_of_its_step() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    seen: list[Any] = []
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: seen.append((opt, args, kwargs)))
    backward(net, 0)
    optimizer.step(None)
    ((opt, args, _kwargs),) = seen
    assert opt is optimizer
    assert args in ((optimizer, None), (None,))


def test_a_pre_hook_may_replace_the_closure() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: ((*args[:-1], lambda: 7.0), kwargs))
    assert optimizer.step(lambda: 1.0) == 7.0


def test_a_removed_hook_fires_no_more(calls: list[str]) -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    handle = optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    handle.remove()
    train(net, [0], optimizer.step)
    assert calls == ["global pre", "global post"]


def test_hooks_of_plain_optimizers_fire_as_before_after_a_mixed_step(calls: list[str]) -> None:
    net = DELEGATING.net()
    train(net, [0], DELEGATING.optimizer(net).step)
    calls.clear()
    train(net, [0], torch.optim.SGD(net.parameters()).step)
    assert calls == ["global pre", "global post"]


def test_a_step_that_raises_leaves_the_global_hooks_in_place(calls: list[str]) -> None:
    net = DELEGATING.net()
    optimizer = DELEGATING.optimizer(net)
    backward(net, 0)
    for group in optimizer.param_groups:
        group["lr"] = "not a number"
    with pytest.raises(TypeError, match="str"):
        optimizer.step()
    calls.clear()
    train(net, [0], torch.optim.SGD(net.parameters()).step)
    assert calls == ["global pre", "global post"]


def test_a_class_whose_step_calls_its_parents_runs_as_alone() -> None:
    ours, theirs = DELEGATING.net(), DELEGATING.net()
    optimizer = DELEGATING.optimizer(ours)
    named = dict(theirs.named_parameters())
    norm = Averaged([named.pop(name) for name in NORM], lr=0.1, momentum=0.9)
    rest = torch.optim.AdamW(named.values(), lr=1e-2)
    train(ours, range(5), optimizer.step)
    train(theirs, range(5), steps([norm, rest]))
    assert_same(ours, theirs)
    assert "first" in optimizer.state[ours.norm.weight]


def test_a_class_that_calls_its_parents_step_by_name_is_refused_with_the_way_out() -> None:
    with pytest.raises(ResolutionError, match=r"ByName\.step calls a parent's step by the parent's name.*super\(\)"):
        under(ByName).optimizer(MIX.net())


@pytest.mark.parametrize("cls", [Averaged, Twice, Mixed])
def test_an_engine_of_a_class_whose_step_calls_a_parents_is_one_of_the_class(cls: type[Optimizer]) -> None:
    made = engine_class(cls)
    assert issubclass(made, cls)
    assert (made.__module__, made.__qualname__, made.__doc__) == (cls.__module__, cls.__qualname__, cls.__doc__)


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.AdamW, torch.optim.NAdam, Unhooked])
def test_a_class_whose_step_calls_no_other_is_its_own_engine(cls: type[Optimizer]) -> None:
    torch.optim.Adam([torch.zeros(1)])  # whose step AdamW inherits, hooked or not
    assert engine_class(cls) is cls


@pytest.mark.parametrize("cls", [torch.optim.AdamW, Averaged, Twice, Mixed])
def test_no_hook_call_of_any_thread_is_lost_while_others_step(cls: type[Optimizer]) -> None:
    """The registries are the process's: whoever emptied them for the length of a step took hooks from all others."""
    fired: Counter[int] = Counter()
    handles = [
        register_optimizer_step_pre_hook(lambda optimizer, *_: fired.update([id(optimizer)])),
        register_optimizer_step_post_hook(lambda optimizer, *_: fired.update([id(optimizer)])),
    ]
    nets = [nn.Linear(2, 2) for _ in range(3)]
    mine = [GroupedOptimizer(net, Plan([Rule("*", optimizer=cls, lr=1e-3)])) for net in nets[:2]]
    optimizers = [*mine, torch.optim.SGD(nets[2].parameters(), lr=1e-3)]
    for p in (p for net in nets for p in net.parameters()):
        p.grad = torch.ones_like(p)
    threads = [threading.Thread(target=lambda one=one: [one.step() for _ in range(1500)]) for one in optimizers]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        for handle in handles:
            handle.remove()
    assert fired == {id(one): 3000 for one in optimizers}


class Meddling(torch.optim.SGD):
    """Does something before it calls its parent's step."""

    meddle: Callable[[], None]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        type(self).meddle()
        return super().step(closure)


def test_a_hook_removed_or_added_during_a_step_stays_so(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meddling, "meddle", lambda: None, raising=False)
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer=Meddling, lr=0.1)]))
    late = register_optimizer_step_post_hook(lambda *_: calls.append("removed"))
    added: list[Any] = []

    def meddle() -> None:
        late.remove()
        added.append(register_optimizer_step_post_hook(lambda *_: calls.append("added")))

    monkeypatch.setattr(Meddling, "meddle", meddle)
    train(net, [0], optimizer.step)
    calls.clear()
    train(net, [0], torch.optim.SGD(net.parameters()).step)
    for handle in added:
        handle.remove()
    assert calls == ["global pre", "global post", "added"]


def test_a_class_that_edits_under_no_grad_keeps_doing_so() -> None:
    net = MIX.net()
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer=Unhooked, lr=0.5)]))
    backward(net, 0)
    expected = {name: p.detach() - 0.5 * p.grad for name, p in net.named_parameters() if p.grad is not None}
    optimizer.step()
    torch.testing.assert_close(weights(net), expected)


def test_the_profilers_label_of_a_step_is_the_optimizers_own() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    backward(net, 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
        optimizer.zero_grad()
    labels = {event.key for event in profile.key_averages() if event.key.startswith("Optimizer.")}
    assert labels == {"Optimizer.step#GroupedOptimizer.step", "Optimizer.zero_grad#GroupedOptimizer.zero_grad"}


def test_a_profiler_sees_the_labels_of_a_step_and_of_dropping_gradients() -> None:
    net = MIX.net()
    optimizer = MIX.optimizer(net)
    optimizer.step()
    with torch.profiler.profile() as profile:
        optimizer.step()
        optimizer.zero_grad()
    labels = [event.key for event in profile.key_averages() if event.key.startswith("Optimizer.")]
    assert sorted(labels) == [f"Optimizer.{what}#GroupedOptimizer.{what}" for what in ("step", "zero_grad")]


def test_a_hook_that_a_closure_registers_fires_after_that_step(calls: list[str]) -> None:
    optimizer = MIX.optimizer(MIX.net())

    def closure() -> float:
        optimizer.register_step_post_hook(lambda *_: calls.append("post"))
        return 0.0

    optimizer.step(closure)
    assert "post" in calls
