"""Where a part of a parameter lies in its tensor.

One tensor may hold several matrices: q, k and v side by side, the experts of a mixture one upon another, a kernel whose
filters are rows. A part is a slice along one axis, or the whole, read as one matrix or as a batch of them. It is
written down as sizes alone, so that it can be cut from whatever framework's tensor by indexing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

SEPARATOR = "@"
"""What stands between the name of a parameter and that of its part."""


@final
@dataclass(frozen=True, slots=True)
class Part:
    """One part of a parameter.

    Args:
        whole: the sizes of the parameter.
        name: what stands behind the `@`; empty where the parameter is not split.
        axis: the dimension that it is split along.
        start: where the part begins on that axis.
        stop: where it ends; None where the parameter is not split.
        stack: whether it is a batch of matrices, the last two dimensions being theirs.
        flatten: how many of the first dimensions are the rows of one matrix, the others being its columns; 0 for none.
    """

    whole: tuple[int, ...]
    name: str = ""
    axis: int = 0
    start: int = 0
    stop: int | None = None
    stack: bool = False
    flatten: int = 0

    @property
    def sliced(self) -> tuple[int, ...]:
        """The sizes of the slice."""
        if self.stop is None:
            return self.whole
        return (*self.whole[: self.axis], self.stop - self.start, *self.whole[self.axis + 1 :])

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of each matrix in it."""
        sizes = self.sliced
        if self.flatten:
            return math.prod(sizes[: self.flatten]), math.prod(sizes[self.flatten :])
        return sizes[-2:] if self.stack else sizes

    @property
    def count(self) -> int:
        """How many matrices of that shape it holds."""
        return math.prod(self.whole[:-2]) if self.stack else 1

    def of(self, tensor: Any) -> Any:
        """The slice of a tensor of the parameter's rank, as a view where the framework makes one."""
        if self.stop is None:
            return tensor
        return tensor[(*[slice(None)] * self.axis, slice(self.start, self.stop))]

    def __str__(self) -> str:
        split = "" if self.stop is None else f"{self.start}:{self.stop} of axis {self.axis}"
        stack = f"a stack of {self.count:,} matrices" if self.stack else ""
        flat = f"{self.sliced} read as a matrix" if self.flatten else ""
        return ", ".join(filter(None, (split, stack, flat)))
