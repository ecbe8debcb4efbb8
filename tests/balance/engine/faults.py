"""Faults on command: a backward that raises at its k-th call, and all that a failed call must leave as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from groupwise.balance import Balancer, Method
from groupwise.balance.engine.undo import generators_of


class Fault(torch.autograd.Function):
    """The identity, whose backward raises at the call that `armed` asks for."""

    countdown = 0
    error: BaseException | None = None

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        Fault.countdown -= 1
        if Fault.countdown == 0 and Fault.error is not None:
            raise Fault.error
        return gradient


@contextmanager
def armed(call: int, error: BaseException) -> Iterator[None]:
    """Inside, the `call`-th backward through a `Fault` raises."""
    Fault.countdown, Fault.error = call, error
    try:
        yield
    finally:
        Fault.countdown, Fault.error = 0, None


def brittle(model: nn.Module) -> nn.Module:
    """The model with a `Fault` behind its lowest and its highest layers."""
    for layer in (model.trunk[0], model.trunk[2], *model.heads.values()):  # type: ignore[union-attr, index, operator]
        layer.register_forward_hook(lambda _layer, _inputs, output: Fault.apply(output))
    return model


def picture(balancer: Balancer, model: nn.Module, method: Method) -> dict[str, Any]:
    """All that a call may change, copied."""
    run = balancer._state
    rows = run.accumulated.by_task() if run.accumulated.begun else {}
    return {
        "step": balancer.step,
        "memory": _copied(run.memory.state_dict()),
        "draws": [generator.get_state() for generator in generators_of(method)],
        "tasks": [sorted(run.tasks), sorted(run.given), sorted(run.expected), sorted(run.suspects)],
        "accumulated": [_copied(dict(run.accumulated.losses)), [_copied([*row.values()]) for row in rows.values()]],
        "held out": run.held_out is None,
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "objects": {name: id(p.grad) for name, p in model.named_parameters()},
        "trains": {name: p.requires_grad for name, p in model.named_parameters()},
        "hooks": {name: len(p._backward_hooks or ()) for name, p in model.named_parameters()},
        "mode": torch.is_grad_enabled(),
        "global draws": torch.get_rng_state(),
    }


def assert_untouched(before: object, after: object, where: str = "") -> None:
    """Equal to the last bit."""
    if isinstance(before, dict):
        assert before.keys() == after.keys(), where  # type: ignore[attr-defined]
        for key, value in before.items():
            assert_untouched(value, after[key], f"{where}/{key}")  # type: ignore[index]
    elif isinstance(before, list):
        assert len(before) == len(after), where  # type: ignore[arg-type]
        for i, (one, other) in enumerate(zip(before, after, strict=True)):  # type: ignore[call-overload]
            assert_untouched(one, other, f"{where}/{i}")
    elif isinstance(before, Tensor):
        assert before.shape == after.shape, where  # type: ignore[attr-defined]
        assert torch.equal(before.nan_to_num(7.5), after.nan_to_num(7.5)), where  # type: ignore[attr-defined]
    else:
        assert before == after, where


def survived(work: Callable[[], object], error: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether it raised that error, and no other."""
    try:
        work()
    except error:
        return True
    return False


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
