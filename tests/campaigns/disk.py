"""Disks that refuse.

Bytes are counted by the system itself: `RLIMIT_FSIZE` lets a write that crosses it come through in part, and refuses
the next, as a full disk does.
"""

import contextlib
import os
import resource
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def refused_at(call: str, place: int, number: int) -> Iterator[None]:
    """The call of that place to a function of `os` is refused with that error, and so are those that follow."""
    original, left = getattr(os, call), [place]

    def refusing(*given: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        return original(*given, **named)

    with mock.patch.object(os, call, refusing):
        yield
