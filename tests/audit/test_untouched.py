"""An audit changes nothing: parameters, gradients, statistics, modes, random states, hooks, and torch itself."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.optim import SGD, Adam, lr_scheduler
from torch.optim.optimizer import _global_optimizer_post_hooks

from groupwise.audit import audit, inspect, watch
from groupwise.errors import AuditError

REPLACED = [
    (torch.autograd, "backward"),
    (torch.autograd, "grad"),
    (torch.Tensor, "backward"),
    (torch.optim.Optimizer, "zero_grad"),
    (torch.amp.GradScaler, "update"),
    (clip_grad, "_get_total_norm"),
    (clip_grad, "_group_tensors_by_device_and_dtype"),
]


class Careless(nn.Module):
    """Everything that a forward pass can move."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("nothing", None)
        self.register_buffer("broken", torch.full((2,), float("nan")))

    def losses(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses, with every side effect there is short of training."""
        self.calls = self.calls + 1
        self.broken += 1
        self.eval()
        self.train()
        self.body[3].bias.requires_grad_(False)
        torch.set_grad_enabled(True)
        out = self.body(x + random.random() + float(np.random.rand()))
        out.square().mean().backward(retain_graph=True)
        return {"one": out[:, 0].mean(), "two": 0.1 * out[:, 1].mean()}


def frozen(value: object) -> object:
    """A copy that compares bit by bit."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().contiguous().view(-1).view(torch.uint8).tolist(), value.dtype, value.shape
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    return [frozen(each) for each in value] if isinstance(value, list | tuple) else value


def state(model: nn.Module, optimizers: list[Any], schedulers: list[Any]) -> dict[str, object]:
    """All that an audit could move."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "tensors": frozen({**model.state_dict(), "nothing": None}),
        "identities": [id(t) for t in (*model.parameters(), *model.buffers())],
        "gradients": {name: (id(p.grad), frozen(p.grad)) for name, p in model.named_parameters()},
        "requires": [p.requires_grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(getattr(module, hook)) for module in model.modules() for hook in hooks],
        "tensor hooks": [p._backward_hooks for p in model.parameters()],
        "optimizers": [frozen(optimizer.state_dict()) for optimizer in optimizers],
        "own": [sorted(vars(optimizer)) for optimizer in (*optimizers, *schedulers)],
        "schedulers": [frozen(scheduler.state_dict()) for scheduler in schedulers],
        "torch": [id(vars(owner)[name]) for owner, name in REPLACED] + [len(_global_optimizer_post_hooks)],
        "random": (frozen(torch.get_rng_state()), random.getstate(), frozen(str(np.random.get_state()))),
        "enabled": torch.is_grad_enabled(),
    }


def program() -> tuple[Careless, list[Any], list[Any], torch.Tensor]:
    """In the middle of a training: states and gradients are there, one module is in another mode."""
    torch.manual_seed(0)
    model, x = Careless(), torch.randn(6, 4)
    optimizers = [Adam(model.body[0].parameters()), SGD(model.body[1:].parameters(), lr=0.1, momentum=0.9)]
    schedulers = [lr_scheduler.StepLR(optimizer, 2) for optimizer in optimizers]
    for _ in range(2):
        model.body(x).square().mean().backward()
        for optimizer in (*optimizers, *schedulers):
            optimizer.step()
    model.body[3].weight.grad = None
    model.body[2].eval()
    return model, optimizers, schedulers, x


def test_a_function_of_losses_leaves_no_trace() -> None:
    model, optimizers, schedulers, x = program()
    before = state(model, optimizers, schedulers)
    seen = inspect(model, optimizers, schedulers, model.losses, x)
    assert not seen.skipped.get("idle-weight")
    assert state(model, optimizers, schedulers) == before


def test_a_function_of_losses_that_raises_leaves_no_trace() -> None:
    model, optimizers, schedulers, x = program()
    before = state(model, optimizers, schedulers)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        audit(model, optimizers, schedulers, model.losses, x[:, :3])
    assert state(model, optimizers, schedulers) == before


def test_what_a_function_freezes_and_switches_off_is_as_before_though_it_raises() -> None:
    model, optimizers, schedulers, _ = program()
    before = state(model, optimizers, schedulers)

    def fails() -> torch.Tensor:
        model.requires_grad_(False)
        model.body[0].weight.grad = torch.ones(3).sum() + torch.zeros(8, 4)
        model.body.eval()
        torch.set_grad_enabled(False)
        torch.rand(3)
        raise ArithmeticError("no loss")

    with pytest.raises(ArithmeticError, match="no loss"):
        audit(model, optimizers, losses=fails)
    assert state(model, optimizers, schedulers) == before


def test_what_cannot_be_put_back_keeps_nothing_else_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizers, schedulers, x = program()
    before = state(model, optimizers, schedulers)

    def fails(state: object) -> None:
        raise ArithmeticError("no generator")

    with monkeypatch.context() as patched:
        patched.setattr(random, "setstate", fails)
        with pytest.raises(ArithmeticError, match="no generator"):
            audit(model, optimizers, losses=model.losses, batch=x)
    after = state(model, optimizers, schedulers)
    assert {key: after[key] for key in after if key != "random"} == {
        key: before[key] for key in before if key != "random"
    }
    assert after["random"][0] == before["random"][0]


def test_a_device_that_is_not_in_use_is_not_taken_into_use(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizers, _, x = program()

    def begins(*_: object) -> None:
        raise AssertionError("the device begins to be used")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", begins)
    audit(model, optimizers, losses=model.losses, batch=x)


def test_losses_are_read_and_not_consumed() -> None:
    model, optimizers, schedulers, x = program()
    losses, others = model.losses(x), model.losses(x)
    before = state(model, optimizers, schedulers)
    audit(model, optimizers, schedulers, losses)
    assert state(model, optimizers, schedulers) == before
    sum(losses.values()).backward()
    sum(others.values()).backward()


def test_a_function_that_trains_is_refused() -> None:
    model, optimizers, _, x = program()

    def trains() -> torch.Tensor:
        loss = model.body(x).square().mean()
        loss.backward()
        optimizers[0].step()
        return model.body(x).square().mean()

    with pytest.raises(AuditError, match="losses changed the model's parameters"):
        audit(model, optimizers, losses=trains)


@pytest.mark.parametrize("fails", [False, True], ids=["to its end", "until it raises"])
def test_a_watched_loop_leaves_torch_as_it_was(fails: bool) -> None:
    model, optimizers, schedulers, x = program()
    before = state(model, optimizers, schedulers)
    with pytest.raises(ZeroDivisionError, match="division"):
        with watch(model, optimizers, schedulers) as seen:
            model.body(x).mean().backward()
            optimizers[0].step()
            schedulers[0].step()
            1 / (0 if fails else 1)
        raise ZeroDivisionError("division")
    after = state(model, optimizers, schedulers)
    assert {key: after[key] for key in ("hooks", "own", "torch", "modes")} == {
        key: before[key] for key in ("hooks", "own", "torch", "modes")
    }
    assert [finding.check for finding in seen.findings if finding.check == "never-stepped"]


def test_a_watched_loop_trains_bit_by_bit_as_an_unwatched_one() -> None:
    def trained(watched: bool) -> list[object]:
        model, optimizers, schedulers, x = program()
        seen = watch(model, optimizers, schedulers, steps=2)
        if watched:
            seen.__enter__()
        for _ in range(4):
            for optimizer in optimizers:
                optimizer.zero_grad()
            sum(model.losses(x).values()).backward()
            clip_grad.clip_grad_norm_(model.parameters(), 1.0)
            for stepping in (*optimizers, *schedulers):
                stepping.step()
        if watched:
            seen.__exit__(None, None, None)
        return [frozen(model.state_dict()), [frozen(optimizer.state_dict()) for optimizer in optimizers]]

    random.seed(0)
    np.random.seed(0)
    first = trained(watched=False)
    random.seed(0)
    np.random.seed(0)
    assert trained(watched=True) == first


def test_a_watch_gives_up_on_an_optimizer_that_never_steps() -> None:
    model, optimizers, _, x = program()
    with watch(model, optimizers, steps=1) as seen:
        for _ in range(101):
            model.body(x).mean().backward()
            optimizers[0].step()
        assert vars(torch.autograd)["backward"].__module__ == "torch.autograd"
        assert not _global_optimizer_post_hooks
    assert "never-stepped" in {finding.check for finding in seen.findings}
