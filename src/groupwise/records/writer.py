"""Writing a run: lines that are whole or absent, in parts that are only ever added to.

A line is one call of the operating system on a file that is opened for appending, so a process that is killed leaves
at most one torn line, and that at the end of its part. Nothing is renamed, rewritten or deleted: when a part has grown
past its size, or when a run goes on in the same folder, a new part begins with a header of its own. (A line is handed
to the operating system, not forced onto the disk: it outlives the process, not a power cut.)

A run belongs to the process that began to write it. A child that is forked from it has no part in it.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, final

from groupwise._paths import path_of
from groupwise.errors import RecordError
from groupwise.records.json_line import encode
from groupwise.records.lock import Owned, hold
from groupwise.records.parts import Part, last_step, number_of, part_name, parts_of
from groupwise.records.values import Event, Header, Numbers, Record, changed, line

PART_BYTES: Final = 64 * 2**20


@final
class Writer:
    """Appends to the run in a folder.

    Args:
        folder: made if it is not there. If it holds a run, that run goes on in a new part.
        header: what every part's header says; `run`, `part` and `started` are filled in here.
        part_bytes: a part that has grown to this size is followed by another one.

    Attributes:
        resumed_after: the last step of the run that goes on, if it has any.

    Raises:
        RecordError: the folder cannot be written, holds something else, or another writer is at work in it.
    """

    def __init__(self, folder: str | os.PathLike[str], header: Header, part_bytes: int = PART_BYTES) -> None:
        self.folder = path_of(folder, RecordError, "the folder of a run")
        self._limit = part_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = hold(self.folder)
        except OSError as error:
            raise RecordError(f"cannot write a run into {self.folder}: {error.strerror or error}") from None
        self._process = os.getpid()
        self._file: Owned | None = None
        self._values: Mapping[str, Numbers] = {}
        try:
            found = parts_of(self.folder)
            self.header = dataclasses.replace(header, run=_run_of(found) or uuid.uuid4().hex)
            steps = (last_step(path) for path in reversed(found))
            self.resumed_after = next((step for step in steps if step is not None), None)
            self._begin(1 + max((number_of(path) for path in found), default=0))
        except OSError as error:
            self.close()
            raise RecordError(f"cannot write a run into {self.folder}: {error.strerror or error}") from None
        except RecordError:
            self.close()
            raise

    @property
    def part(self) -> Path:
        """The file that is being written."""
        return self.folder / part_name(self.header.part)

    @property
    def seconds(self) -> float:
        """Seconds since the part began: the `time` of a step."""
        return round(time.monotonic() - self._began, 4)

    def write(self, record: Record) -> None:
        """Append one line; the next part's header knows the groups of an event that changed them.

        Raises:
            RecordError: the line could not be written (a full disk), or the writer is closed. It is closed then.
                Or this process was forked from the writer's.
        """
        if isinstance(record, Event) and record.groups is not None:
            self.header = dataclasses.replace(self.header, groups=record.groups)
        if self._file is not None and not self._file.closed and self._size >= self._limit:
            self._begin(self.header.part + 1)
        keys, known = line(record), self._values
        if "values" in keys:
            keys["values"], known = changed(keys["values"], known)
        self._append(encode(keys))
        self._values = known

    def close(self) -> None:
        """Let go of the file and of the folder; a second time does nothing."""
        for own in (self._file, self._lock):
            if own is not None:
                own.close()

    def _begin(self, part: int) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self.header = dataclasses.replace(self.header, part=part, started=now)
        try:
            opened = Owned(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        except OSError as error:
            self.close()
            raise RecordError(f"cannot write {self.part}: {error.strerror or error}") from None
        if self._file is not None:
            self._file.close()
        self._file, self._size, self._began = opened, 0, time.monotonic()
        self._values = {}
        self._append(encode(line(self.header)))

    def _append(self, text: str) -> None:
        if self._process != os.getpid():
            raise RecordError(
                f"process {self._process} writes into {self.folder}, and this one was forked from it: "
                "give it a folder of its own"
            )
        if self._file is None or self._file.closed:
            raise RecordError(f"the writer of {self.folder} is closed")
        left = memoryview(text.encode("ascii") + b"\n")
        self._size += len(left)
        try:
            while left:  # a regular file takes it whole; only a full disk does not
                left = left[os.write(self._file.fileno(), left) :]
        except OSError as error:
            self.close()
            raise RecordError(f"cannot write {self.part}: {error.strerror or error}") from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run_of(found: list[Path]) -> str | None:
    """The identifier of the run that a folder already holds."""
    headers = [part.header for part in map(Part, found) if part.header is not None]
    return headers[-1].run if headers else None
