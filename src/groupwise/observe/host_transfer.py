"""From the device to the host: everything of a record in one vector, once.

A CPU's numbers are there already. From an accelerator they are copied into pinned memory behind the step, and nobody
waits: the record is complete when the next step has been launched, and is written then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

import torch


@final
class HostTransfer:
    """A vector on its way to the host."""

    def __init__(self, vector: torch.Tensor) -> None:
        self._arrival: Any = None
        self._vector = vector
        if vector.is_cuda:
            self._vector = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._vector.copy_(vector, non_blocking=True)
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record()

    @property
    def ready(self) -> bool:
        """Whether its numbers can be had without waiting."""
        return self._arrival is None or bool(self._arrival.query())

    def numbers(self) -> list[float]:
        """The numbers; waits for them if need be."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._vector.tolist()


NOTHING: Final = HostTransfer(torch.zeros(0))
"""The transfer of a record all of whose numbers are on the host."""


def packed(parts: Sequence[torch.Tensor], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Vectors and 0-dim tensors as one vector."""
    flat = [part if part.ndim == 1 and part.dtype == dtype else part.reshape(-1).to(dtype) for part in parts]
    if len(flat) == 1:
        return flat[0]
    if any(part.device != device for part in flat):
        flat = [part.to(device) for part in flat]
    return torch.cat(flat) if flat else torch.zeros(0, device=device, dtype=dtype)
