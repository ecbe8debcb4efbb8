"""Asking the method: weights or an update, from what the CPU knows and the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor

from groupwise.balance.engine.rows import HALF, Rows, Update
from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.errors import BalanceError


@final
class Direction(NamedTuple):
    """What a Jacobian method answered: the update, and its inner products [t] with the gradients, and its length."""

    update: list[Update]
    products: Tensor
    length: float


def weights_of(method: Method, gramian: Tensor | None, context: MethodContext, memory: Memory) -> Tensor:
    """[t] float64. Raises `BalanceError` for an answer that is no t finite numbers."""
    if isinstance(method, GramianMethod):
        unseen = torch.full((len(context.tasks), len(context.tasks)), torch.nan, dtype=torch.float64)
        answer: object = method.weights(unseen if gramian is None else gramian, context, memory)
    elif isinstance(method, LossMethod):
        answer = method.weights(context.losses, context, memory)
    else:
        raise BalanceError(f"{method.name} makes an update, not weights")
    return _weights(method, answer, len(context.tasks))


def task_specific_weights_of(method: Method, context: MethodContext, memory: Memory) -> Tensor:
    """[t] float64: what raw task-only gradients are multiplied by."""
    own = method.task_specific_weights(context, memory)
    if own is None:
        return torch.ones(len(context.tasks), dtype=torch.float64)
    return _weights(method, own, len(context.tasks))


def scatter(numbers: Tensor, kept: Sequence[int], count: int) -> Tensor:
    """[count] with the numbers at the places of the tasks that are kept, 0 elsewhere."""
    if len(kept) == count:
        return numbers
    found = torch.zeros(count, dtype=torch.float64)
    found[list(kept)] = numbers
    return found


def direction_of(
    method: JacobianMethod,
    rows: Rows,
    kept: tuple[int, ...],
    given: MethodContext,
    labels: Mapping[Tensor, str],
    memory: Memory,
) -> Direction:
    """The update of the `kept` tasks, times the scale as the rows are; `given` has no splits and no parameters yet."""
    if any(block.touched is not None for block in rows.blocks):
        raise BalanceError(
            f"{method.name} works on whole rows, and those of a sparse embedding have other columns in every batch: "
            "use sparse=False, or a Gramian method"
        )
    scale, matrix = rows.scale, _unscaled(rows)
    jacobian = matrix if len(kept) == rows.count else matrix[list(kept)]
    slots = [slot for block in rows.blocks for slot in block.slots]
    splits = tuple(slot.stop - slot.start for slot in slots)
    names = tuple(labels.get(slot.leaf, f"at {i}") for i, slot in enumerate(slots))
    context = replace(given, splits=splits, parameters=names)
    update = _answer(method, method.update(jacobian, context, memory), (jacobian.shape[1],)).to(jacobian)
    numbers = torch.cat([jacobian @ update, torch.linalg.vector_norm(update).reshape(1)]).double().cpu()
    return Direction([*_cut(rows, update * scale)], numbers[:-1], float(numbers[-1]))


def _weights(method: Method, answer: Any, count: int) -> Tensor:
    """[t] float64 on the CPU."""
    fits = isinstance(answer, Tensor) and answer.shape == (count,) and not answer.requires_grad
    if fits and answer.is_cpu and answer.dtype == torch.float64 and all(map(isfinite, answer.tolist())):
        return cast(Tensor, answer)
    return _answer(method, answer, (count,)).to(device="cpu", dtype=torch.float64)


def _answer(method: Method, answer: object, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(answer, Tensor) or tuple(answer.shape) != shape:
        got = f"shape {list(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        raise BalanceError(f"{method.name} answered with {got}, not with a tensor of shape {list(shape)}")
    if not bool(torch.isfinite(answer).all()):
        raise BalanceError(
            f"{method.name} answered with numbers that are not finite, though all losses and gradients were"
        )
    return answer.detach()


def _unscaled(rows: Rows) -> Tensor:
    """[t, n], unscaled, in float32 at least; where the rows have that form already they are unscaled in place."""
    if len(rows.blocks) == 1 and rows.blocks[0].matrix.dtype not in HALF:
        matrix = rows.blocks[0].matrix
        if rows.scale != 1:
            matrix.div_(rows.scale)
            rows.scale = 1.0
        return matrix
    dtype = torch.float32
    for block in rows.blocks:
        dtype = torch.promote_types(dtype, block.matrix.dtype)
    device = rows.blocks[0].matrix.device
    return torch.cat([block.matrix.to(device, dtype) for block in rows.blocks], dim=1) / rows.scale


def _cut(rows: Rows, update: Tensor) -> Iterator[Update]:
    start = 0
    for block in rows.blocks:
        stop = start + block.matrix.shape[1]
        yield from block.shaped(update[start:stop].to(block.matrix))
        start = stop
