"""A writer of records that is killed, at any moment: what `write` has returned from is there, and every line whole.

The run is resumed after each kill, so that its parts have been broken off in many places.
"""

import contextlib
import mmap
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from groupwise.records import Event, Group, Header, Step, Writer, read
from tests.campaigns.campaign import Attempt
from tests.campaigns.killing import killed
from tests.campaigns.outcome import Outcome, loss, survived

HEADER = Header(groups=(Group("body", "SGD"),))


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """The records of a run that is killed and resumed, over and over."""
    shared = mmap.mmap(-1, 8)

    def attempt(draw: random.Random) -> Outcome:
        run = folder / "run"
        if draw.random() < 0.05:
            shutil.rmtree(run, ignore_errors=True)
        there = read(run).steps[-1] + 1 if run.is_dir() and _has_steps(run) else 0
        shared[:] = struct.pack("<q", there)
        size = draw.choice((200, 5000, 10**9))

        def write() -> None:
            with Writer(run, HEADER, part_bytes=size) as writer:
                for step in range(there, 10**9):
                    if step % 7 == 3:
                        writer.write(Event(step, "skipped"))
                    writer.write(Step(step, 0.5, {"body": {"lr": 0.1}}, scalars={"loss": step / 4}))
                    shared[:] = struct.pack("<q", step + 1)

        killed(write, draw.expovariate(300))
        return _kept(run, struct.unpack("<q", shared[:])[0])

    yield attempt


def _has_steps(run: Path) -> bool:
    return any(b'"step"' in part.read_bytes() for part in run.glob("part-*.jsonl"))


def _kept(run: Path, returned: int) -> Outcome:
    """Whether all is there of which `write` had returned."""
    if not returned and not any(part.stat().st_size for part in run.glob("part-*.jsonl")):
        return survived("killed before the header")
    steps, losses = read(run).series("scalars", "loss")
    if list(steps) != list(range(len(steps))) or [step / 4 for step in steps] != list(losses):
        return loss(f"steps {list(steps)[:5]}… of {len(steps)}")
    if len(steps) not in (returned, returned + 1):
        return loss(f"{returned} lines were written and {len(steps)} are there")
    if any(part.read_bytes()[-1:] not in (b"\n", b"") for part in run.glob("part-*.jsonl")):
        return survived("killed within a line")
    return survived("every line whole")
