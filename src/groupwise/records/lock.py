"""One writer for a folder. The lock is the operating system's, so it goes when its process goes, however that ends.

Where there is no `fcntl` (Windows) nobody is refused; a part is still never opened twice, since a new one must be new.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from groupwise.errors import RecordError

NAME = ".writer"


def hold(folder: Path) -> int:
    """A descriptor that holds the folder until it is closed. Raises `RecordError` if somebody else holds it."""
    held = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(held, 32).decode(errors="replace") or "another process"
            os.close(held)
            mine = owner == f"process {os.getpid()}"
            way = "close what was opened before (the run goes on after that), or" if mine else "a run has one writer;"
            raise RecordError(
                f"{'this process' if mine else owner} is writing into {folder}: {way} give this one a folder of its own"
            ) from None
    os.truncate(held, 0)
    os.write(held, f"process {os.getpid()}".encode())
    return held
