"""Step counts that lie side by side.

Adam keeps a count for each tensor, and to count them one by one takes longer than many a small step's kernel. Those
that nobody else refers to are laid into one memory; each stays a tensor of its own in the state, and is known by where
it lies. Mostly they are one number. Then they are counted without a call of torch, and the kernel, which reads a count
for each tensor, is given one and the same.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from groupwise import _torch

COUNT: Final = "step"
_FEW: Final = 1000
_PLAIN: Final = frozenset({torch.Tensor})


def _references(own: Mapping[str, Any]) -> int:
    """How many refer to a step count; the state that it is asked of is one of them."""
    return sys.getrefcount(own[COUNT])


_UNSHARED: Final = _references({COUNT: object()})


class StepCounts:
    """The memory of some step counts, and where in it each was last seen to lie."""

    def __init__(self) -> None:
        self._memory: array[float] | None = None
        self._addresses: list[int] = []
        self._first: torch.Tensor | None = None

    def are(self, counts: Sequence[torch.Tensor]) -> bool:
        """Whether these are the counts that lie side by side, and nothing else does."""
        try:
            return _PLAIN.issuperset(map(type, counts)) and _addresses(counts) == self._addresses
        except RuntimeError:  # of a tensor that has no memory
            return False

    def add_one(self, counts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Count one step of these, which `are` the counts. Return as many tensors that have the same numbers."""
        memory, first = self._memory, self._first
        if memory is None or first is None:
            raise ValueError("no counts lie side by side")
        number = memory[0]
        if len(memory) <= _FEW and memory.count(number) == len(memory):
            memory[:] = array("f", (number + 1.0,)) * len(memory)
            return [first] * len(memory)
        torch.frombuffer(memory, dtype=torch.float32).add_(1)
        return counts

    def lay(self, held: Sequence[dict[str, Any]]) -> None:
        """Lay the step counts of these states side by side, unless somebody else refers to any, as who keeps a
        checkpoint does. What is made in inference mode could not be counted up outside of it."""
        if torch.is_inference_mode_enabled() or not all(map(_is_unshared, held)):
            return
        if not _own_their_memory([own[COUNT] for own in held]):
            return
        self._memory = array("f", [own[COUNT].item() for own in held])
        whole = torch.frombuffer(self._memory, dtype=torch.float32)
        placed = [whole.new_empty(0).set_(whole.untyped_storage(), i, (), ()) for i in range(len(held))]
        for own, count in zip(held, placed, strict=True):
            own[COUNT] = count
        self._addresses = _addresses(placed)
        self._first = whole.new_empty(0).set_(whole.untyped_storage(), 0, (), ())


def is_count(count: torch.Tensor) -> bool:
    """Whether a step count is a number that a kernel on a CPU reads."""
    plain = count.layout == torch.strided and count.device.type == "cpu"
    return plain and count.dtype == torch.float32 and count.ndim == 0


def _addresses(tensors: Sequence[torch.Tensor]) -> list[int]:
    return [*map(torch.Tensor.data_ptr, tensors)]


def _is_unshared(own: Mapping[str, Any]) -> bool:
    """Whether a step count is a plain number on the CPU to which only this state refers."""
    if _references(own) != _UNSHARED:
        return False
    count = own[COUNT]
    return type(count) is torch.Tensor and is_count(count) and not count.requires_grad


def _own_their_memory(counts: Sequence[torch.Tensor]) -> bool:
    """Whether nothing else has a part in the memory of these: a view of one, what detach() gives, an array of numpy."""
    memories = Counter(map(_torch.storage_key, counts))
    users = {_torch.storage_key(count): _torch.storage_users(count) for count in counts}
    return all(users[key] == own for key, own in memories.items())
