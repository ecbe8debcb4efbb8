"""Steps as columns.

A line holds a few small mappings with the same keys again and again, so the values of one are appended as a row to a
block of numbers that is known by its keys, and a series is a stride through that block: reading costs one append per
mapping rather than one per number, and eight bytes a number.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, final

from groupwise.errors import RecordError

NESTED: Final = ("values", "groups", "tasks", "shares")
"""The sections of a step that are mappings of mappings."""

Keys: TypeAlias = tuple[Any, ...]


class Series(NamedTuple):
    """Some numbers and the steps that they are of, in the order of the steps."""

    steps: array[int]
    values: array[float]


@final
class Block:
    """Rows of numbers under the same keys."""

    def __init__(self) -> None:
        self.rows = array("q")
        self.values = array("d")

    def append(self, row: int, numbers: list[Any]) -> None:
        """Append the numbers of one row."""
        try:
            self.values.fromlist(numbers)
        except TypeError:  # "nan", "inf", "-inf"
            self.values.fromlist([_number(value) for value in numbers])
        self.rows.append(row)


@final
class Columns:
    """The numbers of all steps read so far."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.times = array("d")
        self.hurt: dict[int, tuple[str, ...]] = {}
        self._blocks: dict[str, dict[str, dict[Keys, Block]]] = {"scalars": {}, "cosines": {}}
        self._blocks |= {section: {} for section in NESTED}
        self._kept: tuple[int, bytearray | None] = (0, None)

    def append(self, keys: Mapping[str, Any]) -> None:
        """Take the line of a step. Raises `RecordError` if a section does not hold what the schema says."""
        row, step = len(self.steps), keys.get("step")
        if type(step) is not int or step < 0:
            raise RecordError(f"a step has the number {step!r}")
        try:
            for section in NESTED:
                if section in keys:
                    blocks = self._blocks[section]
                    for name, inner in keys[section].items():
                        _put(blocks, name, row, tuple(inner), list(inner.values()))
            self._append_rest(row, keys)
        except (AttributeError, TypeError, ValueError):
            raise RecordError(f"step {step} holds something that is not of the schema") from None
        self.steps.append(step)
        self.times.append(float(keys.get("time", "nan")))

    def _append_rest(self, row: int, keys: Mapping[str, Any]) -> None:
        if "scalars" in keys:
            _put(self._blocks["scalars"], "", row, tuple(keys["scalars"]), list(keys["scalars"].values()))
        if "cosines" in keys:
            pairs = tuple(tuple(sorted((a, b))) for a, b, _ in keys["cosines"])
            _put(self._blocks["cosines"], "", row, pairs, [cosine for _, _, cosine in keys["cosines"]])
        if "hurt" in keys:
            self.hurt[row] = tuple(keys["hurt"])

    def names(self, section: str) -> list[str]:
        """The groups or tasks that a nested section speaks of, in the order of their first step."""
        return list(self._blocks[section])

    def keys(self, section: str, name: str = "") -> list[Any]:
        """What is known under a name of a section, in the order of its first step."""
        return list(dict.fromkeys(key for keys in self._blocks[section].get(name, {}) for key in keys))

    def series(self, section: str, name: str, key: Any) -> Series:
        """The series of one number; empty if it was never written."""
        found = [
            (block.rows, block.values[keys.index(key) :: len(keys)])
            for keys, block in self._blocks[section].get(name, {}).items()
            if key in keys
        ]
        if len(found) == 1:
            return self._at(*found[0])
        merged = sorted(pair for rows, values in found for pair in zip(rows, values, strict=True))
        return self._at([row for row, _ in merged], (value for _, value in merged))

    def kept(self) -> Iterator[int]:
        """The rows that stand."""
        mask = self._mask()
        return (row for row in range(len(self.steps)) if mask is None or mask[row])

    def _at(self, rows: Iterable[int], values: Iterable[float]) -> Series:
        mask = self._mask()
        if mask is None:
            return Series(array("q", map(self.steps.__getitem__, rows)), array("d", values))
        pairs = [(self.steps[row], value) for row, value in zip(rows, values, strict=True) if mask[row]]
        return Series(array("q", (step for step, _ in pairs)), array("d", (value for _, value in pairs)))

    def _mask(self) -> bytearray | None:
        """Which rows stand: those with no later row at their step or before it; None where all do."""
        if self._kept[0] != len(self.steps):
            mask, least = bytearray(len(self.steps)), 2**63
            for row in range(len(self.steps) - 1, -1, -1):
                if self.steps[row] < least:
                    mask[row], least = 1, self.steps[row]
            self._kept = len(self.steps), (None if all(mask) else mask)
        return self._kept[1]


def _put(blocks: dict[str, dict[Keys, Block]], name: str, row: int, keys: Keys, numbers: list[Any]) -> None:
    known = blocks.get(name)
    if known is None:
        known = blocks[name] = {}
    block = known.get(keys)
    if block is None:
        block = known[keys] = Block()
    block.append(row, numbers)


def _number(value: Any) -> float:
    if isinstance(value, int | float) or value in ("nan", "inf", "-inf"):
        return float(value)
    raise ValueError(value)
