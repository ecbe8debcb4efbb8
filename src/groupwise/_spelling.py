"""Values as people write them: `1e-3`, `0.05`, `7.5e-5`, `0`; and whatever they gave, as an error shows it."""

from __future__ import annotations

import math
import reprlib
from typing import Any, Final

LONGEST: Final = 2000
"""Characters of the longest message."""

_SHOWN: Final = 100
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _SHOWN
_short.maxlevel = 3


def shown(value: object) -> str:
    """`value` as an error message shows it: bounded in width and depth, whatever it is."""
    try:
        return _short.repr(value)
    except ValueError:  # an int with more digits than Python agrees to print
        return f"an {type(value).__name__} too long to print"


def clipped(text: str, most: int = _SHOWN) -> str:
    """At most `most` characters of a text: its beginning and its end, with `…` for what lies between."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def number(x: object, digits: int = 4) -> str:
    """A hyperparameter's value: floats to `digits` significant digits, tuples element by element, the rest as it is."""
    if isinstance(x, tuple | list):
        return f"({', '.join(number(item, digits) for item in x)})"
    if not isinstance(x, float) or not math.isfinite(x):
        return str(x)
    x = float(f"{x:.{digits - 1}e}")
    if x == 0 or 0.01 <= abs(x) < 1e5:
        return f"{x:.{digits}g}" if abs(x) < 1000 else f"{x:.0f}"
    mantissa, _, exponent = f"{x:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def number_from_text(value: object) -> Any:
    """`"1e-3"` (a string to YAML) as the number it spells; anything else as it is, for its reader to judge."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def counted(n: int, what: str) -> str:
    """`1 group`, `2,000 groups`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey."""
    return _visible(" ".join(text.split()))


def printable_lines(text: str) -> str:
    """`text` with its line breaks and its columns, without anything else that a terminal, or a reader, would obey."""
    return "\n".join(_visible(line.expandtabs()) for line in text.splitlines())


def _visible(line: str) -> str:
    """Control characters, and those that turn or hide what stands around them, as a mark that something stood there."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
