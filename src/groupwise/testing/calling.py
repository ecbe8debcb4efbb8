"""Calling a method as a balancer calls it: rows of named tasks, a memory, and the moments between two steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.testing.law import demand
from groupwise.testing.samples import Sample

NAMES = tuple("abcdefgh")
EPOCH = 3


def update(
    method: Method, sample: Sample, memory: Memory | None = None, step: int = 0, tasks: tuple[str, ...] = NAMES
) -> Tensor:
    """The update [n] from the gradients of a sample; for a loss method, its weights times the gradients."""
    entries = sample.jacobian.shape[1]
    splits = (entries,) if isinstance(method, JacobianMethod) else ()
    context = MethodContext(tasks[: len(sample.losses)], sample.losses.clone(), step, splits)
    memory = Memory() if memory is None else memory
    if isinstance(method, LossMethod):
        return method.weights(sample.losses.clone(), context, memory) @ sample.jacobian
    if isinstance(method, GramianMethod):
        return method.weights(sample.jacobian @ sample.jacobian.T, context, memory) @ sample.jacobian
    demand(isinstance(method, JacobianMethod), "it has none of the three shapes: losses, Gramian, Jacobian")
    return method.update(sample.jacobian.clone(), context, memory)  # type: ignore[attr-defined, no-any-return]


def run(
    method: Method, steps: Iterable[Sample], memory: Memory, begin: int = 0, tasks: tuple[str, ...] = NAMES
) -> list[Tensor]:
    """The updates of a run, with every call that a method may get on the way."""
    updates = []
    for number, sample in enumerate(steps, start=begin):
        updates.append(update(method, sample, memory, number, tasks))
        after = MethodContext(tasks[: len(sample.losses)], 0.9 * sample.losses, number)
        method.after_step(after, memory)
        if number % EPOCH == EPOCH - 1:
            method.end_epoch(memory)
    return updates


def close(one: Tensor, other: Tensor, within: float) -> bool:
    """Whether two updates are equal to rounding; `within` is in the units of the gradients."""
    return bool(torch.isfinite(one).all() and (one - other).abs().max() <= within)


def text(vector: Tensor) -> str:
    """A vector in few digits."""
    return "[" + ", ".join(f"{value:.6g}" for value in vector.tolist()) + "]"
