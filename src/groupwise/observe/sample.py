"""Samples of entries, evenly spaced: the same ones of a tensor each time.

Those of all gradients lie one after the other in one vector, so that two updates are compared group by group, in a few
operations, however many tensors they have.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple, final

import torch

SIZE: Final = 2048
_WIDE: Final = (torch.float32, torch.float64)


@final
class Samples(NamedTuple):
    """Samples of the gradients of some parameters.

    Attributes:
        keys: the identities of the parameters.
        sizes: how many entries are of each.
        entries: all of them, [sum of sizes].
    """

    keys: tuple[int, ...]
    sizes: tuple[int, ...]
    entries: torch.Tensor

    def of(self, keys: Sequence[int]) -> Samples:
        """Those of some of the parameters, in their order."""
        if tuple(keys) == self.keys:
            return self
        ends = list(itertools.accumulate(self.sizes))
        places = {key: slice(end - size, end) for key, size, end in zip(self.keys, self.sizes, ends, strict=True)}
        parts = [self.entries[places[key]] for key in keys]
        return Samples(tuple(keys), tuple(map(len, parts)), torch.cat(parts))


def sampled(params: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> Samples | None:
    """Samples of the dense gradients of some parameters; None of none."""
    dense = [(id(p), g) for p, g in zip(params, gradients, strict=True) if g.layout == torch.strided and g.numel()]
    if not dense:
        return None
    parts = [sample(gradient, SIZE) for _, gradient in dense]
    device = parts[0].device
    if any(part.device != device for part in parts):
        parts = [part.to(device) for part in parts]
    return Samples(tuple(key for key, _ in dense), tuple(map(len, parts)), torch.cat(parts))


def common(one: Samples, other: Samples) -> tuple[Samples, Samples] | None:
    """What two samples have of the same parameters, as many entries of each; None where that is nothing."""
    if one.keys == other.keys and one.sizes == other.sizes:
        return one, other
    sizes = dict(zip(other.keys, other.sizes, strict=True))
    keys = [key for key, size in zip(one.keys, one.sizes, strict=True) if sizes.get(key) == size]
    return (one.of(keys), other.of(keys)) if keys else None


def sample(t: torch.Tensor, size: int) -> torch.Tensor:
    """At most `size` entries of a dense tensor, shape [k], real, at least in single precision; it may be a view."""
    flat = t.reshape(-1)
    stride = -(-flat.numel() // size)
    taken = flat[::stride] if stride > 1 else flat
    if taken.is_complex():
        taken = torch.view_as_real(taken).reshape(-1)
    return taken if taken.dtype in _WIDE else taken.float()
