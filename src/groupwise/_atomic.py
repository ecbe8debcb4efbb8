"""Replacing a file so that there is no moment at which it is half written, missing, or readable by more people.

The new content goes to a file of its own beside the target, is flushed to the disk, and takes the target's name in one
step (`os.replace`, POSIX rename); then the directory is flushed too. Whoever is killed leaves the old file whole.

    symbolic links     are followed, chains and dangling ones too: what they lead to is replaced, they stay
    hard links         the other names keep the old content
    permissions        those of the file that is replaced, with its owner, group and access list as far as the system
                       allows; until the content is complete, only its writer can read it. A new file has what any new
                       file gets
    read-only files    are refused, as `open` refuses them
    everything else    a directory, device, pipe or socket is refused, and so is what a process holds open
                       (`/dev/stdout`): only a regular file can be whole or absent

A writer that is killed leaves an orphan, which the next writer of that file removes. An orphan is known by its name,
which ends in a random number and a digest of that number and of the target's name, so no file of anybody else's is
taken for one; and by its lock, which every living writer holds. Where the file system has no locks, orphans stay.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from groupwise._spelling import shown

if sys.platform != "win32":
    import fcntl

_MOST_LINKS: Final = 40
_STEM: Final = 60
"""Bytes of the target's name in that of its new file: some file systems allow no more than 143."""
_SUFFIX: Final = ".partial"
_HEX: Final = 16
_ACCESS_LIST: Final = "system.posix_acl_access"
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write and read; on leaving, it takes the place of `path`. If anything is raised, `path` is as
    before; but for a disk that takes the new file and then does not say that it has: that error says so.

    Raises:
        OSError: no regular file can stand at `path` (`obstacle` says why), it is read-only, or the disk refuses. It
            names `path`, and its `errno` tells a full disk from missing permission.
    """
    with _naming(path):
        if reason := obstacle(path):
            raise OSError(errno.EINVAL, reason)
        target = _followed(path)
        _remove_orphans(target)
        own, file = _created(target)
    try:
        with _naming(path, own), file:
            yield file
            file.flush()
            _take_over(file.fileno(), target)
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()
            if reason := obstacle(path):
                raise OSError(errno.EINVAL, reason)
            with _directory(target.parent) as flush:
                os.replace(own, target)
                flush()
    finally:
        with contextlib.suppress(OSError):
            own.unlink(missing_ok=True)


def obstacle(path: Path) -> str:
    """Why no regular file can stand at `path`, in words; empty if one can. Raises `OSError` if that cannot be seen."""
    if "\0" in str(path):
        return "its name holds a null character"
    with _naming(path):
        target = _followed(path)
        if target.is_symlink():
            return "it is what a process holds open, not a file of its own; give the name of a file"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            mode = target.stat().st_mode
            kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "")
            return f"it is {kind}; give the name of a file" if kind else ""
        return "" if target.parent.is_dir() else f"there is no directory {shown(str(target.parent))}"


def _followed(path: Path) -> Path:
    """Where `path` leads through any symbolic links; a link of `/proc` is left as it is: it leads to no name."""
    for _ in range(_MOST_LINKS):
        if path.name in ("", ".."):
            return Path(os.path.realpath(path))
        place = Path(os.path.realpath(path.parent), path.name)
        if not place.is_symlink() or place.parts[1:2] == ("proc",):
            return place
        path = place.parent / os.readlink(place)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextlib.contextmanager
def _naming(path: Path, own: Path | None = None) -> Iterator[None]:
    """Errors of the system name the file that was asked for, not the one beside it, `own`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (own and error.filename not in (None, str(own))):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _created(target: Path) -> tuple[Path, BinaryIO]:
    """A new, locked file beside `target`. Between its creation and its lock, another writer may remove it."""
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")
    mode = 0o600 if target.exists() else 0o666
    while True:
        own = target.with_name(_name_of(target, secrets.token_hex(_HEX // 2)))
        file = open(own, "x+b", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115  the caller does
        _locked(file, wait=True)  # until whoever takes it for an orphan has removed it
        if own.exists():
            return own, file
        file.close()


def _take_over(file: int, target: Path) -> None:
    """Give an open file the owner, the group, the access list and the permissions of `target`, if there is one.

    Permissions that belonged to an owner or a group who cannot be kept are not given to another.
    """
    if sys.platform == "win32" or not target.exists():
        return
    before, now = target.stat(), os.fstat(file)
    if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        for owner in (before.st_uid, -1):
            with contextlib.suppress(OSError):
                os.fchown(file, owner, before.st_gid)
                break
        now = os.fstat(file)
    mode = stat.S_IMODE(before.st_mode)
    if before.st_uid != now.st_uid:
        mode &= ~stat.S_ISUID
    if before.st_gid != now.st_gid:
        others = (mode & stat.S_IRWXO) << 3
        mode &= ~(stat.S_ISGID | stat.S_IRWXG) | others
    if stat.S_IMODE(now.st_mode) != mode:
        os.fchmod(file, mode)
    if sys.platform == "linux" and (before.st_uid, before.st_gid) == (now.st_uid, now.st_gid):
        with contextlib.suppress(OSError):  # there is none, or the file system knows none
            os.setxattr(file, _ACCESS_LIST, os.getxattr(target, _ACCESS_LIST))


def _name_of(target: Path, token: str) -> str:
    """The name of a new file for `target`: its beginning, `token`, and a digest of both that nobody else writes."""
    stem = target.name
    while len(os.fsencode(stem)) > _STEM:
        stem = stem[:-1]
    key = b"groupwise\0" + token.encode() + b"\0" + os.fsencode(target.name)
    return f".{stem}.{token}{hashlib.blake2b(key, digest_size=_HEX // 2).hexdigest()}{_SUFFIX}"


def _remove_orphans(target: Path) -> None:
    found: list[str] = []
    with contextlib.suppress(PermissionError):  # a directory that may be written and not be listed
        found = [name for name in os.listdir(target.parent) if name.endswith(_SUFFIX)]
    for name in found:
        token = name.removesuffix(_SUFFIX)[-2 * _HEX :][:_HEX]
        if token.isascii() and token.isalnum() and name == _name_of(target, token):
            with contextlib.suppress(OSError):
                _remove_orphan(target.with_name(name))


def _remove_orphan(path: Path) -> None:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and _locked(file, wait=False):
            path.unlink()


def _locked(file: BinaryIO, wait: bool) -> bool:
    """Lock a file for as long as it is open; False if another writer has it, or if there are no locks here."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


@contextlib.contextmanager
def _directory(directory: Path) -> Iterator[Callable[[], None]]:
    """What forces a new name in the directory onto the disk, where the system lets one be opened and flushed.

    It is opened before the name is given, so that nothing but the disk itself can refuse after that.
    """
    handle: int | None = None
    if sys.platform != "win32":
        with contextlib.suppress(PermissionError):
            handle = os.open(directory, os.O_RDONLY)

    def flush() -> None:
        if handle is not None:
            _flush(handle)

    try:
        yield flush
    finally:
        if handle is not None:
            os.close(handle)


def _flush(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM):
            explanation = (
                f"{error.strerror}: the new file is there, whole, but the disk does not say that its name is kept"
            )
            raise OSError(error.errno, explanation) from error
