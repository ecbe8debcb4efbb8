"""Calling the user's own code, and leaving no trace of it.

A forward pass moves the running statistics of norms and the random generators, and a careless one calls `backward`,
freezes a part, or leaves the model in another mode. All of that is put back, each for itself, whatever fails: buffers,
`.grad`, `requires_grad`, training modes, the generators of torch (of every device that is in use), Python and numpy.
Parameters are watched, not copied: a loss function that changes them trains, and is refused.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from groupwise.errors import AuditError


@contextlib.contextmanager
def untouched(modules: Iterable[torch.nn.Module], parameters: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put back whatever the body does to `modules`, to the gradients of `parameters`, and to the random generators.

    Raises `AuditError` if the body changes a parameter in place.
    """
    inner = [module for outer in modules for module in outer.modules()]
    tensors = list(parameters)
    versions = [tensor._version for tensor in tensors]
    with contextlib.ExitStack() as undo:
        for held, name in [(module._buffers, name) for module in inner for name in module._buffers]:
            undo.callback(_put_back, held, name, held[name], _copy(held[name]))
        for tensor in tensors:
            undo.callback(_give_back, tensor, tensor.requires_grad, tensor.grad, _copy(tensor.grad))
        for module in inner:
            undo.callback(setattr, module, "training", module.training)
        for restore, state in _generators():
            undo.callback(restore, state)
        yield
    if versions != [tensor._version for tensor in tensors]:
        raise AuditError("losses changed the model's parameters; it must compute the losses and do no more")


def _put_back(
    held: dict[str, torch.Tensor | None], name: str, buffer: torch.Tensor | None, copy: torch.Tensor | None
) -> None:
    held[name] = _restored(buffer, copy)


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
