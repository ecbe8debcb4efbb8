"""Steps as columns.

A line holds a few small mappings with the same keys again and again, so the values of one are appended as a row to a
block of numbers that is known by its keys, and a series is a stride through that block: reading costs one append per
mapping rather than one per number, and eight bytes a number.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, final

from groupwise._coding import number
from groupwise._spelling import shown
from groupwise.errors import RecordError
from groupwise.records import values
from groupwise.records.values import NESTED

MOST: Final = 500_000
"""As many different names as a run may have; each of them is a column."""

Keys: TypeAlias = tuple[Any, ...]


class Series(NamedTuple):
    """Some numbers and the steps that they are of, in the order of the steps."""

    steps: array[int]
    values: array[float]


@final
class Block:
    """Rows of numbers under the same keys."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.rows = array("q")
        self.values = array("d")

    def append(self, row: int, numbers: list[Any]) -> None:
        """Append the numbers of one row, or none of them. Raises `TypeError` or `ValueError` for what is no number."""
        try:
            self.values.fromlist(numbers)
        except TypeError:  # "nan", "inf", "-inf"
            self.values.fromlist([number(value) for value in numbers])
        self.rows.append(row)

    def drop(self, row: int) -> None:
        """Take back the last row, if it is this one."""
        if self.rows and self.rows[-1] == row:
            self.rows.pop()
            del self.values[len(self.values) - len(self.keys) :]


Places: TypeAlias = dict[Any, list[tuple[Block, int]]]
"""By key, the blocks that have it, and at which place of a row."""


@final
class Columns:
    """The numbers of all steps read so far."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.times = array("d")
        self.conflicting: dict[int, tuple[str, ...]] = {}
        self._blocks: dict[tuple[str, str, Keys], Block] = {}
        self._places: dict[str, dict[str, Places]] = {section: {} for section in (*NESTED, "scalars", "cosines")}
        self._values: dict[str, list[Block]] = {}
        self._begun: list[int] = []
        self._count = 0
        self._kept: tuple[int, bytearray | None] = (0, None)

    def begin(self) -> None:
        """A part begins: its first line says every value anew."""
        self._begun.append(len(self.steps))

    def append(self, keys: Mapping[str, Any]) -> None:
        """Take the line of a step, or nothing of it. Raises `RecordError` if it does not hold what the schema says."""
        row, step, touched = len(self.steps), keys.get("step"), list[Block]()
        if type(step) is not int or not 0 <= step < 2**63:
            raise RecordError(f"a step has the number {shown(step)}, and the first update is 0")
        try:
            time, conflicting = number(keys.get("time", "nan")), tuple(map(_text, _listed(keys.get("conflicting", []))))
            self._append_sections(row, keys, touched)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            for block in touched:
                block.drop(row)
            if isinstance(error, RecordError):
                raise
            values.step(keys)  # raises what is wrong
            raise RecordError(f"step {step} is not of the schema") from None
        self.steps.append(step)
        self.times.append(time)
        if conflicting:
            self.conflicting[row] = conflicting

    def _append_sections(self, row: int, keys: Mapping[str, Any], touched: list[Block]) -> None:
        """Append what the sections hold, noting where."""
        for section in NESTED:
            if section in keys:
                for name, inner in keys[section].items():
                    touched.append(block := self._block(section, name, tuple(inner)))
                    block.append(row, list(inner.values()))
        if "scalars" in keys:
            touched.append(block := self._block("scalars", "", tuple(keys["scalars"])))
            block.append(row, list(keys["scalars"].values()))
        if "cosines" in keys:
            cosines = _listed(keys["cosines"])
            pairs = tuple((_text(min(a, b)), _text(max(a, b))) for a, b, _ in cosines)
            touched.append(block := self._block("cosines", "", pairs))
            block.append(row, [cosine for _, _, cosine in cosines])

    def _block(self, section: str, name: str, keys: Keys) -> Block:
        """The block of these keys, new if there is none."""
        block = self._blocks.get((section, name, keys))
        if block is None:
            self._count += 1 + len(keys)
            if self._count > MOST:
                raise RecordError(
                    f"there are more than {MOST:,} different names: names stay the same from step to step"
                )
            block = self._blocks[section, name, keys] = Block(keys)
            if section == "values":
                self._values.setdefault(name, []).append(block)
            places = self._places[section].setdefault(name, {})
            for key in dict.fromkeys(keys):
                places.setdefault(key, []).append((block, keys.index(key)))
        return block

    def names(self, section: str) -> list[str]:
        """The groups or tasks that a nested section names, in the order of their first step."""
        return list(self._places[section])

    def keys(self, section: str, name: str = "") -> list[Any]:
        """What is known under a name of a section, in the order of its first step."""
        return list(self._places[section].get(name, {}))

    def series(self, section: str, name: str, key: Any) -> Series:
        """The series of one number; empty if it was never written."""
        places = self._places[section].get(name, {}).get(key, [])
        found = [(block.rows, block.values[i :: len(block.keys)]) for block, i in places]
        blocks = self._values.get(name, []) if section == "values" else []
        if len(found) == 1 and len(blocks) < 2:
            return self._at(*found[0])
        merged = sorted(pair for rows, values in found for pair in zip(rows, values, strict=True))
        if len(blocks) > len(found):
            merged = self._held(merged, blocks)
        return self._at([row for row, _ in merged], [value for _, value in merged])

    def _held(self, written: list[tuple[int, float]], blocks: list[Block]) -> list[tuple[int, float]]:
        """A value at every line that names its group: that of the last line before which says one, in the same part."""
        value_of, begun = dict(written), iter([*self._begun, math.inf])
        held: list[tuple[int, float]] = []
        value, fresh = None, next(begun)
        for row in sorted(row for block in blocks for row in block.rows):
            while row >= fresh:
                value, fresh = None, next(begun)
            value = value_of.get(row, value)
            if value is not None:
                held.append((row, value))
        return held

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


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(name)
    return name


def _listed(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise TypeError(data)
    return data
