"""A disk that is full after so many bytes, or at some call: an error of the system that names the file, the old file
whole, nothing beside it, and the same write again comes through.
"""

import contextlib
import errno
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.campaigns.campaign import Attempt
from tests.campaigns.disk import full_after, refused_at
from tests.campaigns.kill_files import Door, doors, versions
from tests.campaigns.outcome import Outcome, foreign, loss, survived

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM)
CALLS = ("fsync", "replace", "open", "fchmod")


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """Each door in turn, on a disk that is full somewhere."""
    torch.set_num_threads(1)
    known = {name: (door, versions(door, folder / name)) for name, door in doors().items()}
    for name in known:
        (folder / name).unlink()

    def attempt(draw: random.Random) -> Outcome:
        name = draw.choice(list(known))
        door, wholes = known[name]
        path = folder / name / name
        path.parent.mkdir(exist_ok=True)
        if draw.random() < 0.3:
            path.unlink(missing_ok=True)
        elif not path.exists():
            door(path, 0)
        old = path.read_bytes() if path.exists() else None
        version = draw.randrange(3)
        if draw.random() < 0.8:
            return _filled(door, path, version, wholes, old, full_after(draw.randrange(len(wholes[version]) + 9)))
        call = draw.choice(CALLS)
        return _filled(door, path, version, wholes, old, refused_at(call, draw.randrange(3), draw.choice(ERRORS)))

    yield attempt


def _filled(
    door: Door,
    path: Path,
    version: int,
    wholes: list[bytes],
    old: bytes | None,
    disk: contextlib.AbstractContextManager[None],
) -> Outcome:
    said = "room enough"
    try:
        with disk:
            door(path, version)
    except OSError as error:
        said = "refused"
        if str(path) not in str(error) or error.errno is None:
            return foreign(error)
    now = path.read_bytes() if path.exists() else None
    complete = now == wholes[version]
    if not complete and (said != "refused" or now != old):
        return loss(f"{path.name}: {said}, and {'no file' if now is None else f'{len(now)} bytes'} are there")
    if beside := [entry.name for entry in path.parent.iterdir() if entry != path]:
        return loss(f"{path.name}: {said}, and {beside} stay")
    door(path, version)
    again = path.read_bytes() == wholes[version]
    return survived(said) if again else loss(f"{path.name}: not the same once there is room")
