"""Laws of a method inside a balancer, on a small network with a trunk, three heads and an optimizer.

In float64, where a scale that is a power of two changes no digit: so a run under `GradScaler` has to equal one without
it, and a run that was saved has to equal one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from groupwise.balance.balancer import Balancer
from groupwise.balance.method import Method
from groupwise.errors import LawBroken
from groupwise.testing.every_method import through_a_file
from groupwise.testing.law import demand

STEPS, STOP, EPOCH = 5, 3, 2
TASKS = ("a", "b", "c")
_SCALE = 2.0**14
_ROUNDING = 1e-12


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.heads = nn.ModuleDict({task: nn.Linear(5, 2) for task in TASKS})

    def losses(self, seed: int) -> dict[str, Tensor]:
        """Three regressions on one batch; all losses are positive."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        shared = torch.tanh(self.trunk(x))
        targets = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
        return {
            task: (head(shared) - target).square().mean()
            for (task, head), target in zip(self.heads.items(), targets, strict=True)
        }


def _net() -> _Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return _Net().double()


def _gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def _train(
    net: _Net, balancer: Balancer, steps: range, scaler: torch.amp.GradScaler | None = None
) -> Iterator[dict[str, Tensor]]:
    """The gradients of every step, unscaled, as the optimizer sees them."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in steps:
        optimizer.zero_grad()
        balancer.backward(net.losses(step), scaler=scaler)
        if scaler is not None:
            scaler.unscale_(optimizer)
        yield _gradients(net)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        balancer.after_step({task: loss.detach() for task, loss in net.losses(step).items()})
        if step % EPOCH == EPOCH - 1:
            balancer.end_epoch()


def scaled(method: Method) -> None:
    """Under `GradScaler`, the optimizer sees the gradients that it sees without one."""
    plain = list(_train(_net(), Balancer(method), range(STEPS)))
    scaler = torch.amp.GradScaler("cpu", init_scale=_SCALE, growth_interval=2)
    _same(plain, list(_train(_net(), Balancer(method), range(STEPS), scaler)), _ROUNDING, "under a GradScaler")


def resumed(method: Method) -> None:
    """A balancer that was saved, as plain data, goes on as it would have."""
    whole = list(_train(_net(), Balancer(method), range(STEPS)))
    net, balancer, loaded = _net(), Balancer(method), Balancer(method)
    list(_train(net, balancer, range(STOP)))
    loaded.load_state_dict(through_a_file(balancer.state_dict()))
    _same(whole[STOP:], list(_train(net, loaded, range(STOP, STEPS))), 0.0, f"saved after {STOP} steps")


def untouched(method: Method) -> None:
    """An update whose backward raises leaves nothing behind: the later ones are those of a run that never saw it."""
    whole = list(_train(_net(), Balancer(method), range(STEPS)))
    net, balancer = _net(), Balancer(method)
    found: list[dict[str, Tensor]] = []
    for step in range(STEPS):
        for task in TASKS:
            losses = net.losses(step)
            losses[task] = _Refused.apply(losses[task])  # type: ignore[no-untyped-call]
            before = _gradients(net)
            for call in (balancer.backward, balancer.accumulate):
                if not _refused(call, losses):
                    raise LawBroken("a backward that raises did not end the update")
            _same([before], [_gradients(net)], 0.0, f"after an update that failed at task {task!r}")
        found += _train(net, balancer, range(step, step + 1))
    _same(whole, found, 0.0, "with updates that failed in between")


def unfrozen(method: Method) -> None:
    """A layer that is unfrozen in mid-run is balanced with the others."""
    for names in (False, True):
        net = _net()
        balancer = Balancer(method, parameters=net if names else None)
        for step in range(STEPS):
            net.trunk.weight.requires_grad_(step % 3 > 0)
            gradients = next(iter(_train(net, balancer, range(step, step + 1))))
            demand("trunk.bias" in gradients, f"the bias has no gradient at step {step}")
            finite = all(bool(gradient.isfinite().all()) for gradient in gradients.values())
            demand(finite, f"a gradient is not finite at step {step}")


def _refused(call: Callable[[dict[str, Tensor]], object], losses: dict[str, Tensor]) -> bool:
    try:
        call(losses)
    except _Refusal:
        return True
    return False


class _Refusal(RuntimeError):
    """What is raised on purpose."""


class _Refused(torch.autograd.Function):
    """The identity, whose backward raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise _Refusal


def _same(expected: list[dict[str, Tensor]], found: list[dict[str, Tensor]], rounding: float, how: str) -> None:
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        demand(one.keys() == other.keys(), f"{how}, {sorted(one.keys() ^ other.keys())} has no gradient in one run")
        for name, gradient in one.items():
            off = float((gradient - other[name]).abs().max())
            limit = rounding * float(gradient.abs().max())
            demand(off <= limit, f"{how}, the gradient of '{name}' is off by {off:.3g} at step {number}")
