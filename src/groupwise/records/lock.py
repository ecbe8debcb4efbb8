"""What a writer owns: descriptors of one process, and one of them holds the folder.

The lock is the operating system's, so it goes when its process goes, however that ends. A lock of this kind belongs to
the open file, which a fork shares: a worker that outlives its killed parent would hold the parent's folder. So a child
closes its copies as soon as it is forked, before anything else runs in it (what it does not have it cannot write to),
and whoever closes a file of its own unlocks it first, for all copies.

Where there are no such locks (Windows, some network file systems) nobody is refused; a part is still never opened
twice, since a new one must be new.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import weakref
from pathlib import Path
from typing import Final, final

from groupwise.errors import RecordError

if sys.platform != "win32":
    import fcntl

NAME: Final = ".writer"


@final
class Owned:
    """An open file that belongs to this process alone: closed by `close`, when it is dropped, and in a forked child.

    Raises:
        OSError: it cannot be opened, or it is no regular file.
    """

    def __init__(self, path: Path, flags: int) -> None:
        with _opening:
            self._descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o644)
            token = object()
            _open[token] = self._descriptor
            self._close = weakref.finalize(self, _close, token, os.getpid())
            _owned.add(self)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "it is no regular file", str(path))

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return not self._close.alive

    def fileno(self) -> int:
        """The descriptor. Raises `OSError` once it is closed."""
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._descriptor

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self._close()


_opening: Final = threading.RLock()
"""Held while a file is opened or closed, and around every fork: no child can have a descriptor that is not noted."""
_open: Final[dict[object, int]] = {}
"""The descriptors that are open, each under a token of its own, since the numbers are used again."""
_owned: Final[weakref.WeakSet[Owned]] = weakref.WeakSet()


def hold(folder: Path) -> Owned:
    """What holds the folder until it is closed. Raises `RecordError` if somebody else holds it."""
    held = Owned(folder / NAME, os.O_RDWR | os.O_CREAT)
    if not _locked(held.fileno()):
        mine = any(own is not held and _same(own, held) for own in list(_owned))
        owner = os.read(held.fileno(), 32).decode(errors="replace") or "another process"
        held.close()
        way = "close what was opened before (the run goes on after that), or" if mine else "a run has one writer;"
        raise RecordError(
            f"{'this process' if mine else owner} is writing into {folder}: {way} give this one a folder of its own"
        )
    os.truncate(held.fileno(), 0)
    os.write(held.fileno(), f"process {os.getpid()}".encode())
    return held


def _close(token: object, owner: int) -> None:
    with _opening:
        descriptor = _open.pop(token, None)
        if descriptor is None:  # of a child, which has closed it
            return
        try:
            if sys.platform != "win32" and os.getpid() == owner:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError:  # a file system without locks
            pass
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now, or there is none to be had."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


def _same(one: Owned, other: Owned) -> bool:
    return not one.closed and os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))


def _in_child() -> None:
    for own in list(_owned):
        own.close()
    for descriptor in _open.values():  # whose closing another thread had begun
        os.close(descriptor)
    _open.clear()
    _opening.release()


if sys.platform != "win32":
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_in_child)
