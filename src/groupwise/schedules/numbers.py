"""Numbers as people hand them over, and as they are shown back.

One reader for every number of a schedule: real, finite and not a bool, whatever its class (numpy scalars pass), and
stored as a plain Python number, so that what is written into a parameter group stays plain data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Final

from groupwise._spelling import shown
from groupwise.errors import ScheduleError

NUMBER_TEXT: Final = r"^\s*[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?\s*$"
"""Text that spells a number, as a regular expression of JSON Schema."""


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


def number_form(
    least: float = -math.inf, most: float = math.inf, above: float = -math.inf, whole: bool = False
) -> Mapping[str, object]:
    """What a file gives for a number in [least, most] and greater than `above`, as JSON Schema; text may spell one.

    >>> number_form(least=0)["anyOf"][0]
    {'type': 'number', 'minimum': 0}
    """
    bounds = {"minimum": least, "maximum": most, "exclusiveMinimum": above}
    kept = {key: bound for key, bound in bounds.items() if math.isfinite(bound)}
    return {"anyOf": [{"type": "integer" if whole else "number", **kept}, {"type": "string", "pattern": NUMBER_TEXT}]}
