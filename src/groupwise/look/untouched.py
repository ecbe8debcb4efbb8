"""Calling the user's own code, and leaving no trace of it.

A forward pass moves the running statistics of norms and the random generators, and a careless one calls `backward`,
freezes a part, keeps what it computed, or leaves the model in another mode. All of that is put back, each for itself,
whatever fails: buffers, `.grad`, `requires_grad`, all attributes of modules and the lists and mappings among them, the
generators of torch (of every device that is in use), Python and numpy. Parameters are watched, not copied.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from groupwise._torch import set_versions


@contextlib.contextmanager
def untouched(
    modules: Iterable[torch.nn.Module], parameters: Iterable[torch.Tensor], copying: bool = True
) -> Iterator[Callable[[], bool]]:
    """Put back whatever the body does to `modules`, to the gradients of `parameters`, and to the random generators.

    Args:
        modules: the networks.
        parameters: theirs.
        copying: whether the body may write into buffers and gradients, whose values are then kept. If it may not, a
            write that went to a copy is none, and is not counted as one.

    Yields a function that tells whether a parameter was changed in place.
    """
    inner = list({id(module): module for outer in modules for module in outer.modules()}.values())
    tensors = list(parameters)
    versions = [tensor._version for tensor in tensors]
    with contextlib.ExitStack() as undo:
        if not copying:
            counted = [*tensors, *_buffers(inner)]
            undo.callback(set_versions, counted, [tensor._version for tensor in counted])
        for tensor in tensors:
            undo.callback(_restore_data, tensor, tensor.detach())
        for module in inner:
            undo.callback(_restore_attributes, module, dict(vars(module)), _contents(module))
        for buffer in _buffers(inner) if copying else ():
            undo.callback(_restored, buffer, _copy(buffer))
        for tensor in tensors:
            undo.callback(
                _give_back, tensor, tensor.requires_grad, tensor.grad, _copy(tensor.grad) if copying else None
            )
        for restore, state in _generators():
            undo.callback(restore, state)
        yield lambda: versions != [tensor._version for tensor in tensors]


def _buffers(modules: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    found = (buffer for module in modules for buffer in module._buffers.values() if buffer is not None)
    yield from {id(buffer): buffer for buffer in found}.values()


def _contents(module: torch.nn.Module) -> list[tuple[Any, Any]]:
    """The containers among a module's attributes, each with a copy of what is in it."""
    return [(held, held.copy()) for held in vars(module).values() if isinstance(held, list | dict | set | deque)]


def _restore_attributes(module: torch.nn.Module, before: dict[str, Any], contents: list[tuple[Any, Any]]) -> None:
    now = vars(module)
    if now.keys() != before.keys() or any(now[name] is not value for name, value in before.items()):
        now.clear()
        now.update(before)
    for held, content in contents:
        if not _is_as_before(held, content):
            held.clear()
            (held.extend if isinstance(held, list | deque) else held.update)(content)


def _is_as_before(held: Any, content: Any) -> bool:
    """Whether the same objects are in it, in the same order."""
    one = [*held.items()] if isinstance(held, dict) else [*held]
    other = [*content.items()] if isinstance(held, dict) else [*content]
    if isinstance(held, dict):
        return len(one) == len(other) and all(a[0] is b[0] and a[1] is b[1] for a, b in zip(one, other, strict=True))
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _restore_data(tensor: torch.Tensor, data: torch.Tensor) -> None:
    """The memory that a tensor had, where `.data = …` gave it another."""
    strided = tensor.layout is torch.strided and data.layout is torch.strided
    if strided and tensor.untyped_storage().data_ptr() != data.untyped_storage().data_ptr():
        tensor.data = data


def _give_back(
    tensor: torch.Tensor, requires_grad: bool, gradient: torch.Tensor | None, copy: torch.Tensor | None
) -> None:
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)
    tensor.grad = _restored(gradient, copy)


def _copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _restored(tensor: torch.Tensor | None, copy: torch.Tensor | None) -> torch.Tensor | None:
    """The same tensor as before, with the values of its copy if it was written to."""
    if tensor is not None and copy is not None and not _same(tensor, copy):
        with torch.no_grad():
            tensor.detach().copy_(copy)
    return tensor


def _same(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Equal bit by bit, so that nan is nan; sparse tensors are taken to differ."""
    plain = tensor.layout == torch.strided and tensor.device.type != "meta"
    return plain and torch.equal(_bits(tensor), _bits(copy))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _generators() -> Iterator[tuple[Callable[[Any], Any], Any]]:
    """Of a device that nothing was computed on yet there is no state: to ask for one would begin to use it."""
    yield torch.set_rng_state, torch.get_rng_state()
    for device in (torch.cuda, torch.xpu):
        if device.is_available() and device.is_initialized():
            yield device.set_rng_state_all, device.get_rng_state_all()
    if torch.backends.mps.is_available():
        yield torch.mps.set_rng_state, torch.mps.get_rng_state()
    yield random.setstate, random.getstate()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield numpy.random.set_state, numpy.random.get_state()
