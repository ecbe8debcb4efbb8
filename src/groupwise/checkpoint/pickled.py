"""What the pickle in the archive will do, found out without doing it.

Its instructions are followed on a stack of placeholders: no global is looked up, nothing is built. So it is known
beforehand which tensors there are and how large each one's data has to be; a reader that believes the pickle alone
would read on in memory that is not the file's. Tuples are counted, since one that holds another twice, over and over,
is hashed without end when it is a key.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from groupwise._spelling import shown
from groupwise.errors import StateError

_DEEPEST: Final = 64
_MOST: Final = 1_000_000
_PUTS: Final = frozenset({"BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET"})
_LEAVES: Final = frozenset(
    {
        "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
        "SHORT_BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "GLOBAL",
    }
)  # fmt: skip
_TAKES: Final[Mapping[str, int]] = {
    "PROTO": 0, "FRAME": 0, "STOP": 1, "EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3,
    "APPEND": 2, "SETITEM": 3, "REDUCE": 2, "BUILD": 2, "NEWOBJ": 2, "BINPERSID": 1,
}  # fmt: skip
_TAKES_BELOW_A_MARK: Final[Mapping[str, int]] = {"TUPLE": 0, "APPENDS": 1, "SETITEMS": 1}
_LEAVES_NOTHING: Final = frozenset({"PROTO", "FRAME", "STOP"})
_ITEM_SIZES: Final[Mapping[str, int]] = {
    f"torch {name}Storage": size
    for size, names in {
        2: ("BFloat16", "Half", "Short"),
        4: ("Float", "Int", "QInt32"),
        8: ("ComplexFloat", "Double", "Long"),
        16: ("ComplexDouble",),
    }.items()
    for name in names
}
"""Bytes of an element, where it is not one: torch's names for the data of its older dtypes. Newer ones count bytes."""
_SOMETHING: Final = object()


class Data(NamedTuple):
    """The data of tensors in one entry of the archive: its name, and its size in bytes."""

    key: str
    size: int


class _Tuple(NamedTuple):
    """A tuple: its elements, how much is inside it, and how deep that lies."""

    parts: Sequence[Any]
    size: int
    depth: int


def data_of(pickle: bytes) -> Iterator[Data]:
    """The data that the tensors of a pickle refer to, in its order; the same several times where it is shared.

    Raises:
        StateError: it is no pickle of plain data.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: list[Any] = []
    most = _MOST + 10 * len(pickle)
    try:
        for code, argument, _ in pickletools.genops(pickle):
            name = code.name
            if name in _PUTS:
                if argument not in (None, len(memo)):
                    raise ValueError(f"{name} {argument}")
                memo.append(stack[-1])
            elif name in _GETS:
                stack.append(memo[int(argument or 0)])
            elif name in _LEAVES:
                stack.append(_SOMETHING if argument is None else argument)
            elif name == "MARK":
                marks.append(len(stack))
            else:
                taken = _taken(stack, marks, name)
                if name == "BINPERSID":
                    yield _data(taken[0])
                if name not in _LEAVES_NOTHING:
                    stack.append(_tuple(taken, most) if "TUPLE" in name else _SOMETHING)
    except (ValueError, IndexError, TypeError, OverflowError) as error:  # of pickletools, or of the stack
        raise StateError(f"damaged: its pickle is not one of plain data ({shown(str(error))})") from error


def _taken(stack: list[Any], marks: list[int], name: str) -> list[Any]:
    """What an instruction takes from the stack."""
    if name in _TAKES_BELOW_A_MARK:
        first = marks.pop() - _TAKES_BELOW_A_MARK[name]
    elif name in _TAKES:
        first = len(stack) - _TAKES[name]
    else:
        raise ValueError(name)
    if first < (marks[-1] if marks else 0):
        raise IndexError(name)
    taken = stack[first:]
    del stack[first:]
    return taken


def _tuple(parts: list[Any], most: int) -> _Tuple:
    size, depth = 1 + len(parts), 1
    for part in parts:
        if isinstance(part, _Tuple):
            size, depth = size + part.size, max(depth, 1 + part.depth)
    if size > most or depth > _DEEPEST:
        raise ValueError("a tuple without end")
    return _Tuple(parts, size, depth)


def _data(state: Any) -> Data:
    """`("storage", class, key, device, number of elements)`."""
    word, kind, key, _, count = state.parts if isinstance(state, _Tuple) else ()
    if word != "storage" or not isinstance(kind, str) or not isinstance(key, str) or type(count) is not int:
        raise ValueError("a storage that is none")
    return Data(key, count * _ITEM_SIZES.get(kind, 1))
