"""The file: a torch archive of plain data that says whose it is and of which version.

It is read without running code, and every way in which a file can be something else has its own sentence. Torch does
not compare checksums; the zip archive has them, so damage in the middle is found too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.serialization import MAP_LOCATION, get_unsafe_globals_in_checkpoint

from groupwise._atomic import replacing
from groupwise.checkpoint.refusing import Refusing
from groupwise.errors import StateError, listed, nearest

FORMAT = "groupwise.checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Content:
    """What a file holds: its parts by name, and the user's own `extra`."""

    parts: Mapping[str, Any]
    extra: Any


def write(path: Path, content: Content) -> None:
    """Replace `path` by a file of `content`, which is plain data. Raises `StateError` if it could not be read again."""
    if path.is_dir():
        raise StateError("is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise StateError(f"there is no directory {str(path.parent)!r}")
    with replacing(path) as file:
        told = {"format": FORMAT, "version": VERSION, "parts": dict(content.parts), "extra": content.extra}
        torch.save(told, file)
        file.flush()
        _refuse_code(file.name)


def read(path: Path, map_location: MAP_LOCATION) -> Content:
    """The content of the file at `path`. Raises `StateError` if it is not a whole checkpoint of ours."""
    _check_archive(path)
    with Refusing("damaged, or not a checkpoint"):
        told = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        held = f"the keys {listed(map(repr, told), 5)}" if isinstance(told, dict) else type(told).__name__
        raise StateError(
            f"a torch file, but not one of groupwise.checkpoint.save: it holds {held}. Read it with torch.load(path, "
            "weights_only=True) and give its parts to load_state_dict"
        )
    version = told.get("version")
    if isinstance(version, int) and version > VERSION:
        raise StateError(f"written by a newer groupwise: format {version}, this one reads up to {VERSION}")
    if version != VERSION or not isinstance(told.get("parts"), dict):
        raise StateError(f"damaged: format {version!r} with parts {type(told.get('parts')).__name__}")
    return Content(told["parts"], told.get("extra"))


def _check_archive(path: Path) -> None:
    if path.is_dir():
        raise StateError("is a directory; give the name of a file")
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, beside, limit=1)
        raise StateError("there is no such file" + (f"; did you mean {close[0]!r}?" if close else ""))
    with Refusing("cannot be read"), path.open("rb") as file:
        head = file.read(4)
    if head != b"PK\x03\x04":
        raise StateError(f"not a checkpoint: it begins with {head!r}" if head else "not a checkpoint: it is empty")
    with Refusing("truncated or damaged"), zipfile.ZipFile(path) as archive:
        names, bad = archive.namelist(), archive.testzip()
    if not any(name.endswith("/data.pkl") for name in names):
        raise StateError(f"a zip archive, but no torch file: it holds {listed(names, 5)}")
    if bad is not None:
        raise StateError(f"damaged: the bytes of {bad} are not those that were written")
    with Refusing("refused"):
        _refuse_code(path)


def _refuse_code(path: str | Path) -> None:
    """Look, without running it, at what the file would have to import."""
    code = get_unsafe_globals_in_checkpoint(path)
    if code:
        raise StateError(f"it holds more than plain data, which is never loaded here: {listed(code, 5)}")
