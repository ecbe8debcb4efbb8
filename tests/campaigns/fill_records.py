"""A disk that is full after so many bytes of records: an error of ours that says so, what was written before is read,
and the run goes on in another part once there is room.
"""

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from groupwise.errors import RecordError
from groupwise.records import Event, Group, Header, Step, Writer, read
from tests.campaigns.campaign import Attempt
from tests.campaigns.disk import full_after
from tests.campaigns.outcome import Outcome, loss, survived

HEADER = Header(groups=(Group("body", "SGD"), Group("head", "AdamW")), table="a table\nof two lines")
STEPS = 12


def _written(folder: Path, first: int) -> int:
    """Write a run from a step on; how far it came before the disk was full, if it was. Raises `RecordError`."""
    step = first
    with Writer(folder, HEADER, part_bytes=700) as writer:
        try:
            for step in range(first, STEPS):
                writer.write(Step(step, 0.5, {"body": {"lr": 0.1}}, scalars={"loss": step / 4}))
                if step % 5 == 1:
                    writer.write(Event(step + 1, "skipped", "an overflow"))
        except RecordError as error:
            if "File too large" not in str(error) or str(folder) not in str(error):
                raise
            return step
    return STEPS


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """A run, and what becomes of it when there is room again."""

    def attempt(draw: random.Random) -> Outcome:
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        came, said = 0, "refused at the header"
        with full_after(draw.randrange(900)), contextlib.suppress(RecordError):
            came = _written(run, 0)
            said = "refused at a line" if came < STEPS else "room enough"
        found = _steps(run)
        if found[:came] != list(range(came)) or len(found) > came + 1:
            return loss(f"{came} steps were written, and {found} are there")
        if _written(run, came) != STEPS or _steps(run) != list(range(STEPS)):
            return loss(f"after {came} steps it does not go on: {_steps(run)}")
        return survived(said)

    yield attempt


def _steps(run: Path) -> list[int]:
    if not any(part.read_bytes().endswith(b"\n") or b"\n" in part.read_bytes() for part in run.glob("part-*.jsonl")):
        return []
    found = read(run).series("scalars", "loss")
    if any(step / 4 != value for step, value in zip(*found, strict=True)):
        return [-1]
    return list(found.steps)
