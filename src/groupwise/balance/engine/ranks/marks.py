"""What must be the same on all ranks besides the losses: the method, its constants, the arguments, the step, the draws.

Each is a text, which an exchange carries as a number of 20 bits. The sum of n numbers and that of their squares tell
whether they are all equal: n sum x^2 = (sum x)^2 then, and only then. Both sums are exact in float64 for up to 2^13
ranks. So a difference is seen by every rank at once, in the message that is sent anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from zlib import crc32

import torch
from torch import Tensor

from groupwise.balance.method import Method

BITS = 20


def number(text: str) -> int:
    """A text as a number of 20 bits."""
    return crc32(text.encode()) % (1 << BITS)


def sums(texts: Sequence[str]) -> list[float]:
    """What one rank adds to the exchange: each number and its square."""
    return [float(value) for text in texts for value in (number(text), number(text) ** 2)]


def differing(names: Sequence[str], found: Sequence[float], size: int) -> list[str]:
    """The names of the texts that are not the same on `size` ranks, from the sums over all."""
    pairs = zip(found[::2], found[1::2], strict=True)
    return [name for name, (first, second) in zip(names, pairs, strict=True) if size * int(second) != int(first) ** 2]


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
    if callable(value):
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
