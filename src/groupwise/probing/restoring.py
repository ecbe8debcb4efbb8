"""Nothing of the caller's is changed: weights, buffers, gradients, modes, attributes and random generators.

Runs are made on copies. What they still could reach (a loss that holds on to the model itself, global generators, the
generator of a DataLoader) is put back, bit for bit, whatever ends the probe: its end, an error, an interrupt.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from groupwise.look.untouched import untouched

_WORD = 2**32


@contextlib.contextmanager
def restored(model: object, generators: Iterable[Any]) -> Iterator[None]:
    """Around a whole probe: `model` is a module, or a mapping of names to modules or parameters, or None."""
    parts = list(model.values()) if isinstance(model, Mapping) else [model]
    modules = [part for part in parts if isinstance(part, torch.nn.Module)]
    own = [p for module in modules for p in module.parameters()] + [p for p in parts if isinstance(p, torch.Tensor)]
    tensors = list({id(p): p for p in own}.values())
    with contextlib.ExitStack() as undo:
        for generator in generators:
            undo.callback(_put_back, generator, _state_of(generator))
        for tensor in tensors:
            undo.callback(_rewrite, tensor, tensor.detach().clone(), tensor._version)
        with untouched(modules, tensors):
            yield


def seed_all(seed: int, generators: Iterable[Any]) -> None:
    """Every generator as a seed has it: those of torch, Python and numpy, and those of the batches."""
    torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % _WORD)
    for generator in generators:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, random.Random):
            generator.seed(seed)
        else:
            fresh = type(generator.bit_generator)(seed)
            generator.bit_generator.state = fresh.state


def _state_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


def _put_back(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


def _rewrite(tensor: torch.Tensor, copy: torch.Tensor, version: int) -> None:
    """The values of a parameter, if anything was written into it."""
    if tensor._version != version:
        with torch.no_grad():
            tensor.detach().copy_(copy)
