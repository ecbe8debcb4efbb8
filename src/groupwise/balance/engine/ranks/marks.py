"""What must be the same on all ranks besides the losses: the method, its constants, the arguments, the step, the draws.

Each is a text without addresses or an order of insertion, or a number that stands for a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from zlib import crc32

import torch
from torch import Tensor

from groupwise.balance.method import Method
from groupwise.schedules import Schedule


def constants(method: Method) -> str:
    """The arguments of a method, spelled alike in every process."""
    found = {field.name: getattr(method, field.name) for field in fields(method) if field.compare}
    return ", ".join(f"{name.rstrip('_')}={spelled(value)}" for name, value in found.items())


def spelled(value: object) -> str:
    """A value without addresses or an order of insertion."""
    if isinstance(value, Method):
        return f"{value.name}({constants(value)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {spelled(value[key])}" for key in sorted(value)) + "}"
    if callable(value) and not isinstance(value, Schedule):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return repr(value)


def digest(value: object) -> int:
    """A number for a state: plain values, tensors and mappings of these."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        return crc32(plain.reshape(-1).view(torch.uint8).numpy().tobytes(), crc32(str(plain.dtype).encode()))
    if isinstance(value, Mapping):
        return crc32(repr([(key, digest(value[key])) for key in sorted(value)]).encode())
    return crc32(repr(value).encode())
