"""Replacing a file so that there is no moment at which it is half written.

The new content goes to a file of its own beside the target, is flushed to the disk, and takes the target's name in one
step (`os.replace`, POSIX rename); then the directory is flushed too. Whoever is killed leaves the old file whole, and
possibly an orphan, which the next writer removes: a writer holds a lock on its file, so one that can be locked is
nobody's.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write; on leaving, it takes the place of `path`. If anything is raised, `path` is as before.

    A symbolic link is followed, and the permissions of a file that is replaced are kept.
    """
    target = path.resolve()
    _remove_orphans(target)
    own, file = _created(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if target.exists():
                own.chmod(stat.S_IMODE(target.stat().st_mode))
            if sys.platform == "win32":
                file.close()
            os.replace(own, target)
    finally:
        own.unlink(missing_ok=True)
    _flush_directory(target.parent)


def _created(target: Path) -> tuple[Path, BinaryIO]:
    """A new, locked file beside `target`. Between its creation and its lock, another writer may remove it."""
    while True:
        own = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        file = open(own, "xb")  # noqa: SIM115  the caller closes it
        _locked(file, wait=True)  # until whoever takes it for an orphan has removed it
        if own.exists():
            return own, file
        file.close()


def _remove_orphans(target: Path) -> None:
    for orphan in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with contextlib.suppress(OSError), open(orphan, "rb") as file:
            if _locked(file, wait=False):
                orphan.unlink()


def _locked(file: BinaryIO, wait: bool) -> bool:
    """Lock a file for as long as it is open; False if another writer has it, or if there are no locks here."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _flush_directory(directory: Path) -> None:
    if sys.platform != "win32":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
