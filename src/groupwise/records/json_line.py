"""A line as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from groupwise._coding import Codec
from groupwise.errors import RecordError

CODEC: Final = Codec(RecordError, sparse=True)
LONGEST: Final = 16 * 2**20
"""Bytes of the longest line."""
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode(keys: Mapping[str, Any]) -> str:
    """One line of JSON, ASCII only, so that a name with any character, a lone surrogate too, comes back as it was."""
    try:
        text = _ENCODER.encode(keys)
    except ValueError:  # some number is not finite
        text = _ENCODER.encode(CODEC.encode(keys))
    if len(text) > LONGEST:
        raise RecordError(f"a line of {len(text):,} characters is longer than any that is read again ({LONGEST:,})")
    return text
