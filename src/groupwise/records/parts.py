"""The files of a run, read as far as they are whole.

A part that is still being written, or whose writer was killed, ends in a torn line or in none: what follows the last
line break is not there yet. Offsets are kept, so that a run that grows is read on from where it was left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

from groupwise.errors import RecordError, listed, nearest, within
from groupwise.records import values
from groupwise.records.values import VERSION, Header

_PART: Final = re.compile(r"part-(\d+)\.jsonl")
_CHUNK: Final = 256 * 2**10


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
            with self.path.open("rb") as file:
                self._take_header(file.readline())
        return self.header is not None

    def lines(self) -> Iterator[list[dict[str, Any]]]:
        """The whole lines after the header that were not read before, in batches.

        Raises:
            RecordError: a line in the middle is broken; the path is for the caller to add.
        """
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while data := _whole(file.read(_CHUNK), file):
                batch = self._parsed(data, last=len(data) < _CHUNK)
                self._offset += len(data)
                self._lines += data.count(b"\n")
                yield batch

    def _take_header(self, first: bytes) -> None:
        if not first.endswith(b"\n"):
            if first and not b'{"kind":"run"'.startswith(first[:13]):
                raise RecordError(_foreign(self.path, first))
            return
        keys = _object(first)
        if keys is None or keys.get("kind") != "run" or type(keys.get("version")) is not int:
            raise RecordError(_foreign(self.path, first))
        if keys["version"] > VERSION:
            raise RecordError(
                f"{self.path} has version {keys['version']} of the record format, and this groupwise reads up to "
                f"version {VERSION}: read it with what wrote it ({keys.get('writer', 'unknown')}), or upgrade groupwise"
            )
        with within(f"{self.path}, line 1"):
            self.header = values.header(keys)
        self._offset, self._lines = len(first), 1

    def _parsed(self, data: bytes, last: bool) -> list[dict[str, Any]]:
        """The objects of whole lines: all at once, and one by one if that fails, to say which is broken."""
        texts = data.split(b"\n")[:-1]
        try:
            batch = json.loads(b"[%b]" % b",".join(texts))
            if len(batch) == len(texts) and all(type(keys) is dict for keys in batch):
                return batch  # type: ignore[no-any-return]
        except ValueError:
            pass
        objects = [_object(text) for text in texts]
        if last and objects and objects[-1] is None:  # torn by a power cut: as good as not written
            objects.pop()
        for number, keys in enumerate(objects, start=self._lines + 1):
            if keys is None:
                raise RecordError(f"line {number} is no record: take it out to read the rest of the run")
        return [keys for keys in objects if keys is not None]


def last_step(path: Path) -> int | None:
    """The number of the last step that a part holds."""
    data = path.read_bytes()
    end = data.rfind(b"\n")
    while end > 0:
        start = data.rfind(b"\n", 0, end) + 1
        keys = _object(data[start:end])
        if keys is not None and keys.get("kind") == "step" and type(keys.get("step")) is int:
            return int(keys["step"])
        end = start - 1
    return None


def _whole(data: bytes, file: Any) -> bytes:
    """The whole lines at the start of `data`; a line that is longer than it is read to its end."""
    end = data.rfind(b"\n") + 1
    if not end and data:
        rest = file.readline()
        return data + rest if rest.endswith(b"\n") else b""
    file.seek(end - len(data), 1)
    return data[:end]


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        keys = json.loads(text)
    except ValueError:
        return None
    return keys if isinstance(keys, dict) else None


def _foreign(path: Path, first: bytes) -> str:
    shown = first[:60].decode(errors="replace").rstrip("\n")
    return f'{path} is no run of groupwise: its first line is {shown!r}, not a header ({{"kind": "run", …}})'
