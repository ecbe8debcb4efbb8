"""The protocol of a sink, and a record as one flat mapping."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Protocol

from groupwise.records import Step


class Sink(Protocol):
    """Whatever takes numbers by name and the step that they are of."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step."""


def flat(record: Step) -> dict[str, float]:
    """The numbers of a record, under keys that every tracker takes."""
    found: dict[str, float] = {}
    for section in (record.values, record.groups):
        for group, numbers in section.items():
            found.update({f"opt/{safe(group)}/{safe(name)}": value for name, value in numbers.items()})
    for task, numbers in record.tasks.items():
        found.update({f"task/{safe(task)}/{safe(name)}": value for name, value in numbers.items()})
    for task, numbers in record.shares.items():
        found.update({f"share/{safe(task)}/{safe(group)}": value for group, value in numbers.items()})
    found.update({f"pair/{safe(a)}/{safe(b)}/cosine": value for a, b, value in record.cosines})
    return found | {safe(name): value for name, value in record.scalars.items()}


def safe(name: str) -> str:
    """A name as a part of a key: `[a-zA-Z0-9-_. ]` alone, never empty, never a path of dots."""
    plain = re.sub(r"[^a-zA-Z0-9\-_. ]", "_", name)
    if plain == name and name.strip(". ") and name == name.strip():
        return name
    return f"{plain.strip('. ') or '_'}-{zlib.crc32(name.encode(errors='surrogatepass')) & 0xFFFFFF:06x}"
