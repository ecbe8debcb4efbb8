"""Driving a method by hand: what the balancer tells it, without a model."""

import io
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod, LossMethod, MethodContext
from groupwise.balance.methods import AutoLambda

NAMES = ("seg", "depth", "normal", "edge", "parts", "text", "flow", "pose")


def context(
    losses: Tensor, tasks: Sequence[str] | None = None, step: int = 0, splits: Sequence[int] = ()
) -> MethodContext:
    """What the balancer shows of one update."""
    return MethodContext(tuple(tasks or NAMES[: len(losses)]), losses.double(), step, tuple(splits))


def weights(method: LossMethod, losses: Tensor, memory: Memory, tasks: Sequence[str] | None = None) -> Tensor:
    """One update of a loss method."""
    return method.weights(losses.double(), context(losses, tasks), memory)


def update(
    method: JacobianMethod,
    jacobian: Tensor,
    memory: Memory,
    tasks: Sequence[str] | None = None,
    splits: Sequence[int] = (),
) -> Tensor:
    """One update of a Jacobian method, with losses of 1."""
    told = context(torch.ones(len(jacobian)), tasks, 0, splits or (jacobian.shape[1],))
    return method.update(jacobian, told, memory)


def run(method: LossMethod, losses: Iterable[Tensor], memory: Memory, tasks: Sequence[str] | None = None) -> Tensor:
    """[steps, t]: every weight of a run in which whatever the method wants to be told is told."""
    found = []
    for i, now in enumerate(losses):
        if isinstance(method, AutoLambda):
            method.learn(now.log() - 0.5, context(now, tasks), memory)
        found.append(weights(method, now, memory, tasks))
        if i % 2:
            method.after_step(context(0.9 * now, tasks), memory)
        if i % 3 == 2:
            method.end_epoch(memory)
    return torch.stack(found)


def reloaded(memory: Memory) -> Memory:
    """The memory of another process: saved, and loaded as `weights_only`."""
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    fresh = Memory(seed=12345)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def positive(steps: int, tasks: int, seed: int = 0) -> Tensor:
    """[steps, tasks] losses above 0, of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-1, 1, tasks, dtype=torch.float64)
    return sizes * (0.1 + torch.rand(steps, tasks, generator=generator, dtype=torch.float64))
