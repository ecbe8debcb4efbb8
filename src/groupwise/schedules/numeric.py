"""Numbers as people hand them over, and as they are shown back.

One reader for every number of a schedule: real, finite and not a bool, whatever its class (numpy scalars pass), and
stored as a plain Python number, so that what is written into a parameter group stays plain data.
"""

from __future__ import annotations

import math
import reprlib
from numbers import Real

from groupwise.errors import ScheduleError

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 3


def shown(value: object) -> str:
    """`value` as an error message shows it: bounded in width and depth, whatever it is."""
    try:
        return _short.repr(value)
    except ValueError:  # an int with more digits than Python agrees to print
        return f"an {type(value).__name__} too long to print"


def number(value: object) -> float:
    """`value` as a float. Raises `ScheduleError` for bools, text, nan and the infinities."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ScheduleError(f"{shown(value)} is not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ScheduleError(f"{shown(value)} is not a finite number")
    return result


def number_from_text(value: object) -> object:
    """`"1e-3"` (a string to YAML) as the number it spells; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
