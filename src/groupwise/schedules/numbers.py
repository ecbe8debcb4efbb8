"""Numbers as people hand them over, and as they are shown back.

One reader for every number of a schedule: real, finite and not a bool, whatever its class (numpy scalars pass), and
stored as a plain Python number, so that what is written into a parameter group stays plain data.
"""

from __future__ import annotations

import math
from numbers import Real

from groupwise._spelling import shown
from groupwise.errors import ScheduleError


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
