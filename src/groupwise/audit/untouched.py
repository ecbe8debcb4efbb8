"""Calling the user's own code, and leaving no trace of it.

A forward pass moves the running statistics of norms and the random generators, and a careless one calls `backward` or
leaves the model in another mode. All of that is put back: buffers, `.grad`, training modes, the generators of torch (on
every device), Python and numpy. Parameters are watched, not copied: a loss function that changes them trains, and is
refused.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from groupwise.errors import AuditError

_Slot = tuple[dict[str, torch.Tensor | None], str, torch.Tensor | None, torch.Tensor | None]


@contextlib.contextmanager
def untouched(modules: Iterable[torch.nn.Module], parameters: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put back whatever the body does to `modules`, to the gradients of `parameters`, and to the random generators.

    Raises `AuditError` if the body changes a parameter in place.
    """
    inner = [module for outer in modules for module in outer.modules()]
    tensors = list(parameters)
    versions = [tensor._version for tensor in tensors]
    modes = [(module, module.training) for module in inner]
    buffers = [_kept(module._buffers, name) for module in inner for name in module._buffers]
    gradients = [(tensor, tensor.grad, _copy(tensor.grad)) for tensor in tensors]
    generators = list(_generators())
    try:
        yield
    finally:
        for restore, state in generators:
            restore(state)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for held, name, buffer, copy in buffers:
                held[name] = _restored(buffer, copy)
            for tensor, gradient, copy in gradients:
                tensor.grad = _restored(gradient, copy)
    if versions != [tensor._version for tensor in tensors]:
        raise AuditError("losses changed the model's parameters; it must compute the losses and do no more")


def _kept(held: dict[str, torch.Tensor | None], name: str) -> _Slot:
    return held, name, held[name], _copy(held[name])


def _copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _restored(tensor: torch.Tensor | None, copy: torch.Tensor | None) -> torch.Tensor | None:
    """The same tensor as before, with the values of its copy if it was written to."""
    if tensor is not None and copy is not None and not _same(tensor, copy):
        tensor.detach().copy_(copy)
    return tensor


def _same(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Equal bit by bit, so that nan is nan; sparse tensors are taken to differ."""
    plain = tensor.layout == torch.strided and tensor.device.type != "meta"
    return plain and torch.equal(_bits(tensor), _bits(copy))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _generators() -> Iterator[tuple[Callable[[Any], Any], Any]]:
    yield torch.set_rng_state, torch.get_rng_state()
    if torch.cuda.is_available():
        yield torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()
    yield random.setstate, random.getstate()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield numpy.random.set_state, numpy.random.get_state()
