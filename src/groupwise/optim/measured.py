"""What the clipping of a step found, as `optimizer.measured` shows it.

Most steps nobody looks, so the two tensors of each scope are made when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from groupwise.optim.clip_factors import Found


class Measured(NamedTuple):
    """What a scope's clipping found (0-dim tensors on the device).

    `norm` is the joint 2-norm before clipping (for value clipping the largest entry, for adaptive clipping the largest
    ratio of gradient to weight); `factor` is what the gradients, or the largest of them, were multiplied by.
    """

    norm: torch.Tensor
    factor: torch.Tensor


class Measurements(Mapping[str, Measured]):
    """By scope, what the last step's clipping found. Each step replaces what is in it."""

    def __init__(self) -> None:
        self._found: list[Found] = []
        self._dtype = torch.float32
        self._made: dict[str, Measured] | None = {}

    def replace(self, found: Sequence[Found], dtype: torch.dtype) -> None:
        """Show these from now on; numbers of the host are of that type as tensors."""
        self._found, self._dtype, self._made = list(found), dtype, None

    def __getitem__(self, key: str) -> Measured:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> dict[str, Measured]:
        if self._made is None:
            self._made = {
                key: Measured(self._tensor(norm), self._tensor(factor))
                for found in self._found
                for key, norm, factor in zip(found.keys, found.norms, found.factors, strict=True)
            }
        return self._made

    def _tensor(self, number: float | torch.Tensor) -> torch.Tensor:
        return number if isinstance(number, torch.Tensor) else torch.tensor(number, dtype=self._dtype)
