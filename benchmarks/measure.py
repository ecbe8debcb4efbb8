"""Measuring side by side: contestants take turns in one process, so that a noisy machine is noisy for all of them.

A round calls every contestant once, in an order that rotates. What is told is the median time of a contestant and the
median over the rounds of its ratio to the reference, which a slow minute does not move. With one thread, times are
the thread's own seconds on a core, so waiting for a neighbour does not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Work = Callable[[], object]
Clock = Callable[[], float]
FLOAT = 4  # bytes
WARMUP = 3  # rounds


@dataclass(frozen=True)
class Scale:
    """How thoroughly to measure: `quick` shows in seconds that everything runs, and its numbers mean nothing.

    `say` is told what is measured next.
    """

    quick: bool = False
    say: Callable[[str], None] = field(default=lambda _: None, repr=False)

    def seconds(self, whole: float) -> float:
        """For one race."""
        return 0.0 if self.quick else whole


@dataclass(frozen=True)
class Table:
    """What one benchmark found: rows of cells, the first of which names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Timing:
    """A contestant's median time in seconds, the median of its ratio to the reference, and the spread of that ratio:
    half the distance between its quartiles.
    """

    seconds: float
    ratio: float
    spread: float = 0.0


def race(
    contestants: Mapping[str, Work],
    reference: str,
    seconds: float = 3.0,
    clock: Clock | None = None,
    before: Mapping[str, Work] | None = None,
    warmup: int = WARMUP,
) -> dict[str, Timing]:
    """Let contestants take turns for about `seconds`; three rounds at least, after `warmup` that do not count.

    With 0 seconds two rounds after one: they show that everything runs.

    `before` has what to do for a contestant before each of its calls, off the clock.
    """
    clock, before = clock or _clock(), before or {}
    for name, work in [*contestants.items()] * (warmup if seconds else 1):
        before.get(name, _nothing)()
        work()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names, deadline, rounds = list(contestants), time.perf_counter() + seconds, 0
    while rounds < (3 if seconds else 2) or time.perf_counter() < deadline:
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            before.get(name, _nothing)()
            times[name].append(_timed(contestants[name], clock))
        rounds += 1
    return {name: _timing(own, times.get(reference, own)) for name, own in times.items()}


def repeated(work: Work, times: int) -> Work:
    """`work`, several times: for work that is too short for a clock."""

    def loop() -> None:
        for _ in range(times):
            work()

    return loop


def speed(model: nn.Module) -> float:
    """Bytes a second that this machine moves at best in `p += g` on the tensors of `model`: what floors are told at."""
    import torch

    values = [parameter.data for parameter in model.parameters()]
    gradients = [torch.ones_like(value) for value in values]
    times = [_timed(lambda: torch._foreach_add_(values, gradients), _clock()) for _ in range(30)]
    return 3 * FLOAT * sum(value.numel() for value in values) / min(times)


def milliseconds(seconds: float) -> str:
    """`12.3 ms`, `1200 ms`, or `45 µs` below a millisecond."""
    number, unit = (seconds * 1e3, "ms") if abs(seconds) >= 1e-3 else (seconds * 1e6, "µs")
    return f"{number:.0f} {unit}" if abs(number) >= 100 else f"{number:.3g} {unit}"


def _clock() -> Clock:
    import torch

    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def _timed(work: Work, clock: Clock) -> float:
    began = clock()
    work()
    return clock() - began


def _nothing() -> None:
    pass


def _timing(own: Sequence[float], reference: Sequence[float]) -> Timing:
    ratios = [a / b for a, b in zip(own, reference, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Timing(statistics.median(own), middle, (high - low) / 2)
