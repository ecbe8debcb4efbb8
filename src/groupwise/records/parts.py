"""The files of a run, read as far as they are whole.

A part that is still being written, or whose writer was killed, ends in a torn line or in none: what follows the last
line break is not there yet. Offsets are kept, so that a run that grows is read on from where it was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from groupwise._spelling import clipped, shown
from groupwise.errors import RecordError, listed, nearest, within
from groupwise.records import values
from groupwise.records.json_line import LONGEST
from groupwise.records.values import VERSION, Header

_PART: Final = re.compile(r"part-([0-9]+)\.jsonl")
_CHUNK: Final = 256 * 2**10
_TOO_LONG: Final = f"is longer than {LONGEST:,} bytes: that is no record"


def part_name(number: int) -> str:
    """`part-000001.jsonl`."""
    return f"part-{number:06d}.jsonl"


def number_of(path: Path) -> int:
    """The number in a part's name."""
    match = _PART.fullmatch(path.name)
    return int(match[1]) if match else 0


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, in order."""
    return sorted((path for path in folder.iterdir() if _PART.fullmatch(path.name)), key=number_of)


def files_of(path: Path) -> list[Path]:
    """The files of the run at `path`, a folder or one file. Raises `RecordError` if there is none."""
    with _readable(path):
        if path.is_file():
            return [path]
        if not path.is_dir():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            close = nearest(path.name, beside, limit=1)
            hint = f"; did you mean {path.parent / close[0]}?" if close else ""
            raise RecordError(f"there is no run at {path}{hint}")
        if not (found := parts_of(path)):
            inside = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
            held = f"it holds {listed(inside, 5)}" if inside else "it is empty"
            raise RecordError(f"{path} is no run: it has no part-000001.jsonl ({held})")
        return found


@final
class Part:
    """One file of a run: its header, once there is one, and what has been read of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._lines = 0
        self.header: Header | None = None
        self.open()

    def open(self) -> bool:
        """Read the header, unless that is done; whether it was there. Raises `RecordError` if the file is no part."""
        if self.header is None:
            with _opened(self.path) as file:
                self._take_header(file.readline(LONGEST + 1))
        return self.header is not None

    def lines(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The whole lines after the header that were not read before, in batches, each with the number of its first.

        Raises:
            RecordError: a line is broken and not the last, or too long; the path is for the caller to add.
        """
        with _opened(self.path) as file:
            file.seek(self._offset)
            while data := self._whole(file.read(_CHUNK), file):
                batch = self._parsed(data, last=len(data) < _CHUNK)
                first = self._lines + 1
                self._offset += len(data)
                self._lines += data.count(b"\n")
                yield first, batch

    def _take_header(self, first: bytes) -> None:
        if len(first) > LONGEST:
            raise RecordError(f"{self.path}, line 1 {_TOO_LONG}")
        if not first.endswith(b"\n"):
            if first and not b'{"kind":"run"'.startswith(first[:13]):
                raise RecordError(_foreign(self.path, first))
            return
        keys = _object(first)
        if keys is None or keys.get("kind") != "run" or type(keys.get("version")) is not int:
            raise RecordError(_foreign(self.path, first))
        if keys["version"] > VERSION:
            raise RecordError(
                f"{self.path} has version {shown(keys['version'])} of the record format, and this groupwise reads up "
                f"to version {VERSION}: read it with what wrote it ({_short(keys.get('writer'))}), or upgrade groupwise"
            )
        with within(f"{self.path}, line 1"):
            self.header = values.header(keys)
        self._offset, self._lines = len(first), 1

    def _whole(self, data: bytes, file: BinaryIO) -> bytes:
        """The whole lines at the start of `data`; a line that is longer than it is read to its end."""
        end = data.rfind(b"\n") + 1
        if not end and data:
            data += file.readline(LONGEST + 1 - len(data))
            if len(data) > LONGEST:
                raise RecordError(f"line {self._lines + 1} {_TOO_LONG}")
            return data if data.endswith(b"\n") else b""
        file.seek(end - len(data), os.SEEK_CUR)
        return data[:end]

    def _parsed(self, data: bytes, last: bool) -> list[dict[str, Any]]:
        """The objects of whole lines: all at once, and one by one if that fails, to say which is broken."""
        texts = data.split(b"\n")[:-1]
        try:
            batch = json.loads(b"[%b]" % b",".join(texts))
            if len(batch) == len(texts) and all(type(keys) is dict for keys in batch):
                return batch  # type: ignore[no-any-return]
        except (ValueError, RecursionError):
            pass
        objects = [_object(text) for text in texts]
        if last and objects and objects[-1] is None:  # torn by a power cut: as good as not written
            objects.pop()
        for number, keys in enumerate(objects, start=self._lines + 1):
            if keys is None:
                raise RecordError(f"line {number} is no record: take it out to read the rest of the run")
        return [keys for keys in objects if keys is not None]


def last_step(path: Path) -> int | None:
    """The number of the last step that a part holds. Raises `RecordError` if the part cannot be read."""
    with _opened(path) as file:
        for line in _backwards(file):
            keys = _object(line)
            if keys is not None and keys.get("kind") == "step" and type(keys.get("step")) is int:
                return int(keys["step"])
    return None


def finished_after(folder: Path) -> int | None:
    """After how many updates the run in a folder says that it is finished; None if it does not, or there is none.

    Raises `RecordError` if a part cannot be read.
    """
    for path in reversed(parts_of(folder) if folder.is_dir() else []):
        with _opened(path) as file:
            for keys in map(_object, _backwards(file)):
                if keys is not None and keys.get("kind") in ("step", "event"):
                    is_end = keys.get("event") == "finished" and type(keys.get("step")) is int
                    return int(keys["step"]) if is_end else None
    return None


def _backwards(file: BinaryIO) -> Iterator[bytes]:
    """The whole lines of a file, the last one first; of one that is too long, only its end."""
    place = file.seek(0, os.SEEK_END)
    right: list[bytes] | None = None  # the pieces, from right to left, of the line that began further left
    while place:
        size = min(place, _CHUNK)
        place = file.seek(place - size)
        first, *lines = file.read(size).split(b"\n")
        if lines:
            if right is not None:
                yield b"".join([lines[-1], *reversed(right)])
            yield from reversed(lines[:-1])
            right = [first]
        elif right is not None and len(right) * _CHUNK <= LONGEST:
            right.append(first)
    if right is not None:
        yield b"".join(reversed(right))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file of a run, to read: a regular one, since nobody waits for what a pipe may bring."""
    with _readable(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordError(f"{path} is no regular file")
        file = path.open("rb")
    with file:
        yield file


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"cannot read {path}: {error}") from error


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        keys = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return keys if isinstance(keys, dict) else None


def _short(writer: object) -> str:
    return clipped(writer) if isinstance(writer, str) else "unknown"


def _foreign(path: Path, first: bytes) -> str:
    beginning = first[:60].decode(errors="replace").rstrip("\n")
    return f'{path} is no run of groupwise: its first line is {beginning!r}, not a header ({{"kind": "run", …}})'
