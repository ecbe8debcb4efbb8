"""Section b, hooks: each fires once per step, in torch's order, whatever the engines do inside."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from groupwise import GroupedOptimizer, Plan, Rule
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


@pytest.mark.parametrize("mix", [MIX, ADAGRAD, DELEGATING], ids=["sgd+adamw", "adagrad", "step calls super().step"])
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
