"""Numbers in JSON, which has no nan and no infinity: they are written as the texts "nan", "inf" and "-inf"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(value: Mapping[str, Any]) -> str:
    """One line of JSON, ASCII only, so that a name with any character, a lone surrogate too, comes back as it was."""
    try:
        return _ENCODER.encode(value)
    except ValueError:  # some number is not finite
        return _ENCODER.encode(spelled(value))


def spelled(value: Any) -> Any:
    """The value, in which every number that is not finite has become a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {key: spelled(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [spelled(inner) for inner in value]
    return value
