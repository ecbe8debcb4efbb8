"""What an update costs: seconds on a core, and the most bytes that live at one time.

Time: contestants take turns, so that a noisy machine is noisy for all of them; what counts is the median over the
rounds of a contestant's ratio to the reference. Memory: on CUDA, what the allocator says; elsewhere every tensor that
an operation returns is watched until it is freed. What a kernel allocates for itself is not counted there.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from groupwise._torch import DispatchMode, storage_key

Work = Callable[[], object]


def ratios(works: Mapping[str, Work], reference: str, rounds: int) -> dict[str, float]:
    """The time of each work over that of the reference, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken = _seconds(works[name])
            if number:
                times[name].append(taken)
    return {name: _ratio(own, times[reference]) for name, own in times.items()}


def _ratio(own: Sequence[float], reference: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, reference, strict=True))


def _seconds(work: Work) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock = time.thread_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter
    began = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def peak(work: Work) -> int:
    """The most bytes that were alive at one time during `work`, beyond those that were alive before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before: int = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        most: int = torch.cuda.max_memory_allocated()
        return most - before
    live = Live()
    with live:
        work()
    return live.peak


@final
class Live(DispatchMode):
    """Counts the bytes of the tensors that operations return, from their making until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, and watch what it made."""
        given = {storage_key(x) for x in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for x in _tensors(made):
            self._watch(x, given)
        return made

    def _watch(self, tensor: Tensor, given: set[int]) -> None:
        key = storage_key(tensor)
        if key in given or key in self._known:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _tensors(value: object) -> Iterator[Tensor]:
    """The plain, dense tensors in the arguments or the results of an operation."""
    if isinstance(value, Tensor):
        if type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided:
            yield value
    elif isinstance(value, Mapping):
        yield from _tensors([*value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
