"""Records on their way: sent in their order, and written in it, each when it is complete and has arrived.

On an accelerator a record arrives when the next step has been launched; one whose path was asked for is complete when
the next update has been taken.

What makes a line of numbers is a hundred small steps of Python, which take half as long right after others of the kind.
So lines are written several at a time: when `TOGETHER` wait, or when the last writing was `SECONDS` ago. A process that
is killed loses those, which are of the last two seconds before its last step.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Final, final

from groupwise.observe.errors import Errors
from groupwise.observe.noise import NoiseScale
from groupwise.observe.record_builder import Logged, RecordBuilder
from groupwise.observe.run_log import RunLog
from groupwise.records import Step

TOGETHER: Final = 64
SECONDS: Final = 2.0


@final
class Pending:
    """The records that are not written yet.

    Args:
        log: where they go.
        writes: whether this process writes them.
        errors: what becomes of errors.

    Attributes:
        newest: the newest record that was written.
    """

    def __init__(self, log: RunLog, writes: bool, errors: Errors) -> None:
        self._log, self._writes, self._errors = log, writes, errors
        self._builders: deque[RecordBuilder | Logged] = deque()
        self._noise = NoiseScale()
        self._written = -math.inf
        self.newest: Step | None = None

    @property
    def awaits_gradients(self) -> RecordBuilder | None:
        """The last record, if its path ends in the gradients of the update that follows."""
        last = self._builders[-1] if self._builders else None
        return last if isinstance(last, RecordBuilder) and last.path else None

    def add(self, builder: RecordBuilder | Logged) -> None:
        """A record that has been sent. The path of the one before ends in it."""
        if (waiting := self.awaits_gradients) is not None:
            waiting.measurement.release(path=False)
        self._builders.append(builder)

    def write(self, wait: bool = False, now: bool = False) -> None:
        """Write, in order, what is complete and has arrived, if it is time.

        Args:
            wait: write all of it, and wait for what has not arrived.
            now: write without waiting for others.
        """
        moment = time.monotonic()
        late = moment - self._written >= SECONDS or len(self._builders) >= TOGETHER
        if not (wait or now or late or not self._log.waits):
            return
        self._written = moment
        while self._builders and self._complete(wait) and (wait or self._builders[0].ready):
            builder = self._builders.popleft()
            self._errors.attempt("writing a record", builder.step, self._write, builder)

    def _write(self, builder: RecordBuilder | Logged) -> None:
        record = builder.read(self._noise)
        if builder.skipped:
            self._log.event(record.step, "skipped", "the fused step found gradients that are not finite")
        elif self._writes and builder.has_content:
            self.newest = record
            self._log.step(record)

    def _complete(self, wait: bool) -> bool:
        """Whether the first record is complete; the end of a path comes with the record that follows."""
        first, following = self._builders[0], self._builders[1] if len(self._builders) > 1 else None
        if isinstance(first, Logged) or isinstance(following, Logged):
            return True  # no path is open before numbers alone
        if first.path and (wait or (following is not None and following.ready)):
            first.end_path(following)
        return not first.path
