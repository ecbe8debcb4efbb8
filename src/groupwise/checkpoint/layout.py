"""The bytes of the file: a zip archive as `torch.save` writes one, and nothing else that a zip archive may be.

    entries      one after the other from the first byte on, each a header, its data as they are, and their checksum
    directory    of every entry its name, checksum, size and place
    end          where the directory lies
    seal         the digest of directory and end, as the archive's comment; torch and every zip reader pass it over

A zip archive states most things twice, and readers differ in which they believe: in torch's, one bit of the directory
makes an entry a folder, which has no data, and a tensor is left with whatever the memory held. Here what stands twice
has to agree, and what `torch.save` never writes (compression, encryption, attributes, gaps, a name twice) is refused.
So there is one way to read the file, and reading takes as much memory as the file is long. The seal binds the
checksums of all data together: a damaged bit of a value, a cut, or parts of two files in one are found wherever they
are; what is left unread (padding, times) may differ. A file of the first edition has no seal, and its checksums stand
alone.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, final

from groupwise._spelling import shown
from groupwise.errors import StateError, listed

_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")
_ENTRY: Final = struct.Struct("<IHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<IHHHHIIH")
_END_64: Final = struct.Struct("<IQHHIIQQQQ")
_LOCATOR: Final = struct.Struct("<IIQI")
_SUM: Final = struct.Struct("<IIII")
_SUM_64: Final = struct.Struct("<IIQQ")
_IS_LOCAL, _IS_ENTRY, _IS_END, _IS_END_64, _IS_LOCATOR, _IS_SUM = (
    int.from_bytes(b"PK" + mark, "little") for mark in (b"\3\4", b"\1\2", b"\5\6", b"\6\6", b"\6\7", b"\7\x08")
)
_SUM_FOLLOWS: Final = 0x0008
_UTF_8: Final = 0x0800
_BEYOND: Final = 2**32 - 1
_MARK: Final = b"groupwise sha256 "
_SEAL: Final = len(_MARK) + 64
_CHUNK: Final = 2**20


class _Bytes:
    """An open file, whose length is known, by places."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.length = file.seek(0, os.SEEK_END)

    def at(self, place: int, size: int) -> bytes:
        """The bytes at a place; none where the file does not hold as many."""
        if not 0 <= place <= place + size <= self.length or size < 0:
            return b""
        self._file.seek(place)
        return self._file.read(size)

    def numbers(self, place: int, form: struct.Struct) -> tuple[int, ...]:
        """The numbers of a record; none of them is a valid sign if the file does not hold it."""
        return _unpacked(form, self.at(place, form.size))


class Entry(NamedTuple):
    """A named stretch of bytes, and what their checksum should be."""

    name: str
    start: int
    size: int
    checksum: int


@final
@dataclass(frozen=True)
class Layout:
    """The entries of an archive by name, in the order of the file."""

    entries: Mapping[str, Entry]

    def data(self, file: BinaryIO, entry: Entry) -> Iterator[bytes]:
        """The bytes of an entry, piece by piece. Raises `StateError` at the end if they are not those written."""
        checksum, left = 0, entry.size
        file.seek(entry.start)
        while left and (piece := file.read(min(left, _CHUNK))):
            checksum, left = zlib.crc32(piece, checksum), left - len(piece)
            yield piece
        if left or checksum != entry.checksum:
            raise StateError(f"damaged: the bytes of {entry.name} are not those that were written")


class _Directory(NamedTuple):
    """Where the directory lies, how many entries it has, where the file's own data end, and its digest, if any."""

    start: int
    size: int
    entries: int
    end: int
    seal: bytes


class _DirectoryEntry(NamedTuple):
    """What the directory says of an entry."""

    name: str
    flags: int
    method: int
    checksum: int
    sizes: tuple[int, int]
    place: int
    more: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it is data as they are: not packed, not locked, no folder, without attributes."""
        packed, size = self.sizes
        plain = not self.method and not self.flags & ~(_SUM_FOLLOWS | _UTF_8) and packed == size
        return plain and not any(self.more) and self.name[-1:] not in ("", "/")


def layout(file: BinaryIO) -> Layout:
    """The entries of an open archive; their data are not read yet.

    Raises:
        StateError: it is no archive of torch, or not as it was written.
    """
    source = _Bytes(file)
    found = _directory(source)
    entries = list(_directory_entries(source.at(found.start, found.size)))
    names = [entry.name for entry in entries]
    if not any(name.endswith("/data.pkl") for name in names):
        raise StateError(f"a zip archive, but no torch file: it holds {listed(names, 5)}")
    if found.seal and found.seal != _digest(source, found):
        raise _damaged("its directory is not what was written")
    if len(entries) != found.entries or len(set(names)) != len(names):
        raise _damaged("its directory does not list every entry once")
    ends = [*(entry.place for entry in entries[1:]), found.start]
    if entries[0].place:
        raise _damaged("something stands before its first entry")
    return Layout({entry.name: _entry(source, entry, end) for entry, end in zip(entries, ends, strict=True)})


def seal(file: BinaryIO) -> None:
    """Append the digest of the directory and of the end to an archive that was just written."""
    source = _Bytes(file)
    found = _directory(source)
    digest = _digest(source, found)
    file.seek(found.end - 2)
    file.write(struct.pack("<H", _SEAL) + _MARK + digest)


def _directory(source: _Bytes) -> _Directory:
    for comment in (_SEAL, 0):
        place = source.length - comment - _END.size
        sign, *_, count, size, start, length = source.numbers(place, _END)
        if sign == _IS_END and length == comment:
            break
    else:
        raise _damaged("it does not end as it should")
    end, told_seal = place + _END.size, source.at(source.length - comment, comment)
    sign, _, wide, _ = source.numbers(place - _LOCATOR.size, _LOCATOR)
    if sign == _IS_LOCATOR:
        sign, *_, count, size, start = source.numbers(wide, _END_64)
        place = wide if sign == _IS_END_64 and wide + _END_64.size + _LOCATOR.size == place else -1
    if start + size != place or (comment and not told_seal.startswith(_MARK)):
        raise _damaged("it does not end as it should")
    return _Directory(start, size, count, end, told_seal.removeprefix(_MARK))


def _digest(source: _Bytes, found: _Directory) -> bytes:
    """Of the directory and the end, without the length of the comment."""
    return hashlib.sha256(source.at(found.start, found.end - 2 - found.start)).hexdigest().encode()


def _directory_entries(directory: bytes) -> Iterator[_DirectoryEntry]:
    at = 0
    while at < len(directory):
        fields = _unpacked(_ENTRY, directory[at : at + _ENTRY.size])
        sign, _, _, flags, method, _, _, checksum, packed, size, named, wide, comment, *more, place = fields
        at += _ENTRY.size
        name, beyond = directory[at : at + named].decode(errors="replace"), directory[at + named : at + named + wide]
        at += named + wide
        if sign != _IS_ENTRY or at > len(directory):
            raise _damaged("its directory is not what save writes")
        size, packed, place = _beyond(beyond, size, packed, place)
        yield _DirectoryEntry(name, flags, method, checksum, (packed, size), place, (comment, *more))


def _beyond(more: bytes, *numbers: int) -> list[int]:
    """The numbers, those that do not fit into 32 bits from the field that holds them then."""
    beyond = [number for number in numbers if number == _BEYOND]
    if len(more) != (4 + 8 * len(beyond) if beyond else 0) or more[:4] != (
        struct.pack("<HH", 1, 8 * len(beyond)) if beyond else b""
    ):
        raise _damaged("the directory holds what save never writes")
    wide = iter(struct.unpack(f"<{len(beyond)}Q", more[4:]))
    return [next(wide) if number == _BEYOND else number for number in numbers]


def _entry(source: _Bytes, stated: _DirectoryEntry, end: int) -> Entry:
    """The entry that the directory states, if it is all there is up to `end`."""
    if not stated.is_plain:
        raise _damaged(f"{shown(stated.name)} is packed, locked or a folder, which save never writes")
    name = stated.name.encode()
    header = source.at(stated.place, _LOCAL.size + len(name))
    sign, _, flags, method, *_, named, more = _unpacked(_LOCAL, header[: _LOCAL.size])
    if (sign, flags, method, named, header[_LOCAL.size :]) != (_IS_LOCAL, stated.flags, 0, len(name), name):
        raise _damaged(f"the header of {shown(stated.name)} is not what the directory says")
    start, size = stated.place + len(header) + more, stated.sizes[0]
    rest = end - start - size
    form = _SUM_64 if rest == _SUM_64.size else _SUM
    follows = form.pack(_IS_SUM, stated.checksum, size, size) if flags & _SUM_FOLLOWS else b""
    if rest != len(follows) or source.at(start + size, rest) != follows:
        raise _damaged(f"{shown(stated.name)} does not end as the directory says")
    return Entry(stated.name, start, size, stated.checksum)


def _unpacked(form: struct.Struct, data: bytes) -> tuple[int, ...]:
    """The numbers of a record; none of them is a valid sign if the file ends within it."""
    return form.unpack(data.ljust(form.size, b"\0"))


def _damaged(how: str) -> StateError:
    return StateError(f"truncated or damaged: {how}")
