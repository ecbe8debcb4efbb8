"""The file: a torch archive of plain data that says whose it is and of which version.

It is read without running code, and every way in which a file can be something else has its own sentence. Nothing of
it is handed to torch before the whole of it is known to be as it was written: the archive's form (`layout`), the
checksums of all data, and that the tensors of the pickle are exactly what the archive holds (`pickled`).
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch.serialization import MAP_LOCATION, get_unsafe_globals_in_checkpoint

from groupwise._atomic import obstacle, replacing
from groupwise._spelling import shown
from groupwise.checkpoint.layout import Layout, layout, seal
from groupwise.checkpoint.pickled import data_of
from groupwise.checkpoint.refusing import refusing
from groupwise.errors import StateError, listed, nearest

FORMAT = "groupwise.checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Content:
    """What a file holds: its parts by name, and the user's own `extra`."""

    parts: Mapping[str, Any]
    extra: Any


def write(path: Path, content: Content) -> None:
    """Replace `path` by a file of `content`, which is plain data.

    Raises `StateError` if no file can stand there, or if it could not be read again; `OSError` if the disk refuses.
    """
    if reason := obstacle(path):
        raise StateError(reason)
    with replacing(path) as file:
        data = {"format": FORMAT, "version": VERSION, "parts": dict(content.parts), "extra": content.extra}
        torch_sees = _Remembering(file)
        try:
            torch.save(data, cast(BinaryIO, torch_sees))
        except RuntimeError:
            if torch_sees.refusal is not None:
                raise torch_sees.refusal from None
            raise
        file.flush()
        _refuse_code(file)
        _check_tensors(file, layout(file))
        seal(file)


def read(path: Path, map_location: MAP_LOCATION) -> Content:
    """The content of the file at `path`. Raises `StateError` if it is not a whole checkpoint of ours."""
    with _opened(path) as file:
        found = layout(file)
        for entry in found.entries.values():
            for _ in found.data(file, entry):
                pass
        _check_tensors(file, found)
        with refusing("refused"):
            _refuse_code(file)
        file.seek(0)
        with refusing("damaged, or not a checkpoint"):
            data = torch.load(file, map_location=map_location, weights_only=True)
    return _content(data)


def _content(data: object) -> Content:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        held = f"the keys {listed(map(repr, data), 5)}" if isinstance(data, dict) else type(data).__name__
        raise StateError(
            f"a torch file, but not one of groupwise.checkpoint.save: it holds {held}. Read it with torch.load(path, "
            "weights_only=True) and give its parts to load_state_dict"
        )
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise StateError(f"written by a newer groupwise: format {version}, this one reads up to {VERSION}")
    if version != VERSION or not isinstance(data.get("parts"), dict):
        raise StateError(f"damaged: format {shown(version)} with parts {type(data.get('parts')).__name__}")
    return Content(data["parts"], data.get("extra"))


class _Remembering:
    """A file as torch writes to it. It remembers what went wrong: torch then says only that its own count is off."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refusal: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write; a second try after a refusal is the same refusal."""
        if self.refusal is not None:
            raise self.refusal
        try:
            return self._file.write(data)
        except OSError as error:
            self.refusal = error
            raise

    def flush(self) -> None:
        """Nothing: who writes the file flushes it."""


def _opened(path: Path) -> BinaryIO:
    """The file, open, if its first bytes are those of a zip archive."""
    if path.is_dir():
        raise StateError("is a directory; give the name of a file")
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, beside, limit=1)
        raise StateError("there is no such file" + (f"; did you mean {shown(close[0])}?" if close else ""))
    if not stat.S_ISREG(path.stat().st_mode):
        raise StateError("is no regular file, and a checkpoint is read from one")
    with refusing("cannot be read"):
        file = path.open("rb")
        head = file.read(4)
    if head != b"PK\x03\x04":
        file.close()
        raise StateError(f"not a checkpoint: it begins with {head!r}" if head else "not a checkpoint: it is empty")
    return file


def _check_tensors(file: BinaryIO, found: Layout) -> None:
    """Raise `StateError` unless the archive holds the data of the pickle's tensors, and of no others."""
    pickle = next(entry for name, entry in found.entries.items() if name.endswith("/data.pkl"))
    root = pickle.name.removesuffix("data.pkl")
    needed = {f"{root}data/{key}": size for key, size in data_of(b"".join(found.data(file, pickle)))}
    held = {name: entry.size for name, entry in found.entries.items() if name.startswith(f"{root}data/")}
    if wrong := [name for name in {**needed, **held} if needed.get(name) != held.get(name)]:
        raise StateError(f"damaged: {listed(wrong, 5)}: what the file holds is not what its tensors need")


def _refuse_code(file: BinaryIO) -> None:
    """Look, without running it, at what the file would have to import."""
    file.seek(0)
    code = get_unsafe_globals_in_checkpoint(file)
    if code:
        raise StateError(f"it holds more than plain data, which is never loaded here: {listed(code, 5)}")
