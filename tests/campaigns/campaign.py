"""A campaign: one kind of fault, tried as often as you like, each time otherwise, and each time the same from its seed.

An input is known by the seed and its number, so that any one of many thousands can be tried again alone. Time is
counted in seconds of the processor, so that a busy machine makes no hang; memory is the highest that the process came
to during the input, above what it had before it.
"""

import contextlib
import random
import resource
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from tests.campaigns.outcome import Kind, Outcome, foreign

Attempt = Callable[[random.Random], Outcome]


class Campaign(NamedTuple):
    """How attempts are made ready in an empty folder, and what one may take."""

    ready: Callable[[Path], contextlib.AbstractContextManager[Attempt]]
    seconds: float = 10.0
    memory: int = 128 * 2**20


class Hang(BaseException):
    """What interrupts an attempt that takes too long."""


def outcomes(name: str, campaign: Campaign, numbers: Iterable[int], seed: int) -> Iterator[Outcome]:
    """What comes of the inputs of these numbers."""
    with tempfile.TemporaryDirectory() as folder, campaign.ready(Path(folder)) as attempt:
        for i in numbers:
            yield _watched(campaign, attempt, random.Random(f"{name} {seed} {i}"))


def _watched(campaign: Campaign, attempt: Attempt, draw: random.Random) -> Outcome:
    before = _peak(anew=True)
    try:
        with _within(campaign.seconds):
            found = attempt(draw)
    except Hang:
        return Outcome(Kind.HANG, f"more than {campaign.seconds:.0f} s")
    except Exception as error:
        return foreign(error)
    took = _peak() - before
    return Outcome(Kind.MEMORY, f"{took / 2**20:.0f} MiB") if took > campaign.memory else found


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak(anew: bool = False) -> int:
    """Bytes of the most memory that this process ever had; since now, where Linux lets it be counted anew."""
    with contextlib.suppress(OSError):
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
