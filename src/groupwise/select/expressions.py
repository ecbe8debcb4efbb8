"""Regular expressions as values: what `re` would make of a text, in six kinds of parts.

The syntax is that of `re`, and what a single character or an empty place (`^`, `\\b`) means is left to `re`: such
a part keeps its text. What is not regular is refused: back references, conditions, atomic groups and possessive
repetitions.
"""

from __future__ import annotations

import functools
import re
import warnings
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, final

from groupwise._spelling import shown
from groupwise.errors import SelectorError

_DEEPEST: Final = 50
_FLAGS: Final = {"i": re.IGNORECASE, "s": re.DOTALL, "m": re.MULTILINE, "a": re.ASCII, "u": re.UNICODE}
_ESCAPE: Final = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|0[0-7]{0,2}|.)", re.DOTALL
)
_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_REPEAT: Final = re.compile(r"([*+?]|\{(\d*)(,?)(\d*)\})([?+]?)")
_GROUP: Final = re.compile(r"\((?:\?(?:P<\w+>|<?[=!]|([aimsu]*)(?:-([ims]+))?:|:))?")
_GLOBAL: Final = re.compile(r"\(\?([aimsu]+)\)")
_REMARK: Final = re.compile(r"\(\?#[^)]*\)")
_WIDE: Final = re.compile(r"-(?:\\[uUN]|[^\x00-\u024f])")


@final
@dataclass(frozen=True)
class One:
    """One character: the text of what it may be, and the flags under which that is read."""

    text: str
    flags: int


@final
@dataclass(frozen=True)
class Here:
    """An empty place: `^`, `$`, `\\b` and the like."""

    text: str
    flags: int


@final
@dataclass(frozen=True)
class Look:
    """What has to follow, or to stand before, or must not."""

    part: Part
    ahead: bool
    wanted: bool


@final
@dataclass(frozen=True)
class Row:
    """One after the other."""

    parts: tuple[Part, ...]


@final
@dataclass(frozen=True)
class Either:
    """One of several."""

    parts: tuple[Part, ...]


@final
@dataclass(frozen=True)
class Repeat:
    """So many times at least, and at most; None is without end."""

    part: Part
    least: int
    most: int | None


Part: TypeAlias = One | Here | Look | Row | Either | Repeat


def parsed(text: str) -> Part:
    """The expression that a text is. Raises `SelectorError` if it is none, or not regular."""
    ignoring_case = re.search(r"\(\?[a-z]*i", text)
    if ignoring_case and _WIDE.search(text):
        raise SelectorError(f"regex({shown(text)}): a range of characters beyond Latin letters, with (?i)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # re's notes on what a later Python may read differently
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise SelectorError(f"regex({shown(text)}) is no regular expression: {error}") from error
        return _Parser(text).whole()


@final
class _Parser:
    """Reads an expression that `re` takes; refuses what is not regular in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> Part:
        flags = 0
        if piece := _GLOBAL.match(self._text):
            flags, self._at = _flags(piece[1]), piece.end()
        return self._either(flags, 0)

    def _either(self, flags: int, level: int) -> Part:
        if level > _DEEPEST:
            self._refuse(f"groups nested deeper than {_DEEPEST} levels")
        rows = [self._row(flags, level)]
        while self._took("|"):
            rows.append(self._row(flags, level))
        return Either(tuple(rows)) if len(rows) > 1 else rows[0]

    def _row(self, flags: int, level: int) -> Part:
        parts: list[Part] = []
        self._pass_remarks()
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            one = self._one(flags, level)
            self._pass_remarks()
            parts.append(self._repeated(one))
            self._pass_remarks()
        return Row(tuple(parts)) if len(parts) != 1 else parts[0]

    def _repeated(self, part: Part) -> Part:
        piece = _REPEAT.match(self._text, self._at)
        if piece is None or piece[0].startswith("{}"):
            return part
        self._at = piece.end()
        if piece[5] == "+":
            self._refuse("a possessive repetition")
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(piece[1], (-1, None))
        if least < 0:
            least = int(piece[2] or 0)
            most = (int(piece[4]) if piece[4] else None) if piece[3] else least
        return Repeat(part, least, most)

    def _one(self, flags: int, level: int) -> Part:
        char = self._text[self._at]
        if char == "(":
            return self._group(flags, level)
        if char == "\\":
            return self._escape(flags)
        if char == "[" and (piece := _CLASS.match(self._text, self._at)):
            self._at = piece.end()
            return One(piece[0], flags)
        self._at += 1
        if char in "^$":
            return Here(char, flags)
        return One(char if char == "." else re.escape(char), flags)

    def _escape(self, flags: int) -> Part:
        piece = _ESCAPE.match(self._text, self._at)
        if piece is None or piece[0][1] in "123456789":
            self._refuse("a back reference")
        self._at = piece.end()
        return Here(piece[0], flags) if piece[0][1] in "AZbB" else One(piece[0], flags)

    def _group(self, flags: int, level: int) -> Part:
        piece = _GROUP.match(self._text, self._at)
        if (
            piece is None
            or self._text.startswith(("(?P=", "(?(", "(?>"), self._at)
            or (piece[0] == "(" and self._text.startswith("(?", self._at))
        ):
            self._refuse("a back reference, a condition, an atomic group or a flag that is not known here")
        self._at = piece.end()
        inner = (flags | _flags(piece[1] or "")) & ~_flags(piece[2] or "")
        part = self._either(inner, level + 1)
        self._took(")")
        if piece[0][-1] in "=!":
            return Look(part, ahead="<" not in piece[0], wanted=piece[0][-1] == "=")
        return part

    def _pass_remarks(self) -> None:
        while remark := _REMARK.match(self._text, self._at):
            self._at = remark.end()

    def _took(self, char: str) -> bool:
        took = self._text.startswith(char, self._at)
        self._at += took
        return took

    def _refuse(self, what: str) -> NoReturn:
        raise SelectorError(
            f"regex({shown(self._text)}) has {what}, which cannot be followed in bounded time; in Python, "
            "where(lambda info: …) takes any condition"
        )


def _flags(letters: str) -> int:
    return functools.reduce(lambda flags, letter: flags | _FLAGS[letter], letters, 0)


def width(part: Part) -> int:
    """How many characters a part is that `re` takes for a look behind: always the same number."""
    match part:
        case One():
            return 1
        case Here() | Look():
            return 0
        case Row():
            return sum(map(width, part.parts))
        case Either():
            return min(map(width, part.parts))
        case Repeat():
            return part.least * width(part.part)
