"""Several processes: one of them writes, and what it writes is of all of them.

Gradients that DistributedDataParallel has averaged are the same everywhere, so nothing has to be exchanged for them.
Sums over split tensors are added up, and what was logged is averaged, both in one exchange for each record.

An exchange that some rank does not take part in hangs. Whether all ranks observe is agreed on once, through the store
of the process group, at the first step: every rank waits a while for the others, and the first that has an answer,
writes it for all. What is logged can differ in its names from rank to rank (a task may be absent from a batch), so a
number is put where a hash of its name says, and counted: a rank gets the mean over those that logged the same name.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from typing import Any, Final, final

import torch

from groupwise import _ranks

SLOTS: Final = 251

_numbers = itertools.count()


@final
class Ranks:
    """The ranks of the default process group; one, where there is none."""

    def __init__(self) -> None:
        self._group = _ranks.world()
        self.rank = 0 if self._group is None else self._group.rank
        self.world = 1 if self._group is None else self._group.size
        self._notes = None if self._group is None else _ranks.Notes.under(f"groupwise/observer/{next(_numbers)}")
        self._together: bool | None = None if self._notes is not None else False

    def announce(self) -> None:
        """Let the other ranks know that this one observes: once it really does."""
        if self._notes is not None:
            self._notes.arrive("here")

    @property
    def together(self) -> bool:
        """Whether every rank observes; the first call may wait for them."""
        if self._together is None:
            self._together = self._notes is not None and self._agreed(self._notes)
        return self._together

    def _agreed(self, notes: _ranks.Notes) -> bool:
        for _ in _ranks.polls():
            if notes.count("here") >= self.world:
                break
        proposal = "together" if notes.count("here") >= self.world else "alone"
        return notes.settle("answer", proposal) == "together"

    def exchanged(
        self, sums: torch.Tensor | None, metrics: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """The sums over all ranks, where there are any, and the means of what was logged.

        Args:
            sums: [n], of the same length on every rank.
            metrics: 0-dim tensors by name.
        """
        slots = _slots(metrics)
        keys = list(slots)
        table = torch.zeros(3, SLOTS, device=device, dtype=dtype)
        where = torch.tensor([slots[key] for key in keys], dtype=torch.long, device=device)
        hashes = torch.tensor([float(_hash(key)) for key in keys], device=device, dtype=dtype)
        values = torch.stack([metrics[key].to(table) for key in keys]) if keys else hashes
        table[:, where] = torch.stack([torch.ones_like(values), hashes, values])
        joined = table.flatten() if sums is None else torch.cat([table.flatten(), sums])
        if self._group is not None:
            self._group.add(joined)
        count, found, total = joined[: 3 * SLOTS].view(3, SLOTS)[:, where]
        means = torch.where(found == hashes * count, total / count, values)
        return (None if sums is None else joined[3 * SLOTS :]), {
            **metrics,
            **dict(zip(keys, means.unbind(), strict=True)),
        }


def _slots(metrics: Mapping[str, Any]) -> dict[str, int]:
    """Where each name goes; of two that would share a place, the second is not exchanged."""
    taken: dict[int, str] = {}
    for key in metrics:
        taken.setdefault(_hash(key) % SLOTS, key)
    return {key: slot for slot, key in taken.items()}


def _hash(key: str) -> int:
    return zlib.crc32(key.encode(errors="surrogatepass"))
