"""Reading a run, while it is being written or long after.

    run = read("runs/first")
    steps, norms = run.series("groups", "backbone", "grad_norm")

A run that went back (it was resumed from an older checkpoint) has one past: a step that was taken again replaces all
that was written before from that step on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, final

from groupwise._paths import path_of
from groupwise._spelling import shown
from groupwise._warning import warn
from groupwise.errors import RecordError, listed, unknown, within
from groupwise.records import values
from groupwise.records.columns import Columns, Series
from groupwise.records.parts import Part, files_of, number_of, part_name
from groupwise.records.values import Event, Group, Header

Section: TypeAlias = Literal["values", "groups", "tasks", "shares", "scalars", "cosines"]

SECTIONS: Final[Mapping[str, int]] = {"values": 2, "groups": 2, "tasks": 2, "shares": 2, "cosines": 2, "scalars": 1}
"""The sections of a step that hold numbers, and how many names a series in one has."""


def read(path: str | os.PathLike[str]) -> Run:
    """The run in a folder, or the part of it that one file holds, up to the last line that is whole.

    Raises:
        RecordError: there is no run, it is empty (its header is not written yet), it is of a newer version, a file is
            not of a run, two runs are in one folder, a line in the middle is broken, or a line holds something that is
            not of the schema. The message names the file and the line.
    """
    return Run(path)


@final
class Run:
    """A run that was read.

    A number that was not finite is `nan` or an infinity again. `path` is where it was read from.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_of(path, RecordError, "a run")
        self._parts: dict[Path, Part] = {}
        self._headers: list[Header] = []
        self._columns = Columns()
        self._events: list[tuple[int, Event]] = []
        self._firsts: list[int | None] = []
        self._groups: tuple[Group, ...] = ()
        self._refused = ""
        self.update()

    def update(self) -> bool:
        """Read on: whatever has been written since. Whether there was anything. Raises `RecordError` as `read` does."""
        before = len(self._columns.steps) + len(self._events)
        if self._refused:
            raise RecordError(self._refused)
        try:
            for path in files_of(self.path):
                self._read(path)
        except RecordError as error:
            self._refused = str(error)  # a run that was read half is not read on
            raise
        if not self._headers:
            raise RecordError(f"{self.path} is empty: not even the header of the run is written yet")
        return len(self._columns.steps) + len(self._events) > before

    @property
    def header(self) -> Header:
        """The header of the last part, with the groups that it ends with."""
        return dataclasses.replace(self._headers[-1], groups=self._groups)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups at the end of the run."""
        return self._groups

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks: those of the headers, then any that a step names."""
        declared = [task for header in self._headers for task in header.tasks]
        return list(dict.fromkeys([*declared, *self._columns.names("tasks"), *self._columns.names("shares")]))

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened, in order, without what a later part took back."""
        return tuple(event for part, event in self._events if not self._undone(part, event))

    @property
    def steps(self) -> array[int]:
        """The updates that have a line, ascending."""
        return array("q", (self._columns.steps[row] for row in self._columns.kept()))

    @property
    def times(self) -> array[float]:
        """For each of `steps`, the seconds since the start of its part."""
        return array("d", (self._columns.times[row] for row in self._columns.kept()))

    @property
    def conflicting(self) -> list[tuple[int, tuple[str, ...]]]:
        """The updates that raise a task's loss to first order, and which tasks'."""
        columns = self._columns
        return [(columns.steps[row], columns.conflicting[row]) for row in columns.kept() if row in columns.conflicting]

    def series(self, section: Section, *keys: str) -> Series:
        """One number over the steps: `(steps, values)`, two arrays; empty if it was never recorded.

        Args:
            section: "values" (keys: group, hyperparameter), "groups" (group, statistic), "tasks" (task, number),
                "shares" (task, group), "cosines" (task, task, in either order) or "scalars" (name).
        """
        if section not in SECTIONS or len(keys) != SECTIONS[section]:
            wanted = ", ".join(f"{name} with {count}" for name, count in SECTIONS.items())
            raise RecordError(f"no series {shown(section)} with {len(keys)} names (there is: {wanted})")
        if section == "scalars":
            return self._columns.series(section, "", keys[0])
        if section == "cosines":
            return self._columns.series(section, "", tuple(sorted(keys)))
        return self._columns.series(section, *keys)

    def names(self, section: Section, name: str | None = None) -> list[Any]:
        """What a section is about: its groups or tasks; with one of them, what is known of it.

        For "scalars" the names; for "cosines" the pairs of tasks.
        """
        if section not in SECTIONS:
            raise RecordError(unknown("section", str(section), SECTIONS))
        if section in ("scalars", "cosines"):
            return self._columns.keys(section)
        return self._columns.names(section) if name is None else self._columns.keys(section, name)

    def __len__(self) -> int:
        return sum(1 for _ in self._columns.kept())

    def _read(self, path: Path) -> None:
        if path not in self._parts or self._parts[path].header is None:
            self._enter(path)
        if self._parts[path].header is not None:
            with within(str(path)), _uncollected():
                for first, batch in self._parts[path].lines():
                    self._take(first, batch)

    def _enter(self, path: Path) -> None:
        part = self._parts[path] = Part(path)
        if part.header is None:
            return
        before = self._headers[-1] if self._headers else part.header
        if before.run != part.header.run:
            raise RecordError(
                f"{self.path}: two runs in one folder: {path.name} is of run {shown(part.header.run)}, the part before "
                f"it of {shown(before.run)}; give each a folder of its own"
            )
        if missing := self._missing(before.part + 1, part.header.part):
            warn(f"{self.path} lacks {missing}: the run has a gap")
        self._columns.begin()
        self._headers.append(part.header)
        self._firsts.append(None)
        self._groups = part.header.groups

    def _missing(self, first: int, last: int) -> str:
        """The parts from `first` to before `last` that are not there; one may be there without its header."""
        there = sorted(number for number in map(number_of, self._parts) if first <= number < last)
        edges = [first - 1, *there, last]
        gaps = [(a + 1, b - 1) for a, b in itertools.pairwise(edges) if a + 1 < b]
        return listed((part_name(a) if a == b else f"{part_name(a)} to {part_name(b)}" for a, b in gaps), 4)

    def _take(self, first: int, batch: list[dict[str, Any]]) -> None:
        """Take the lines from number `first` on."""
        number = first
        try:
            for number, keys in enumerate(batch, first):  # noqa: B007  the number is for the error
                kind = keys.get("kind")
                if kind == "step":
                    self._columns.append(keys)
                    if self._firsts[-1] is None:
                        self._firsts[-1] = keys["step"]
                elif kind == "event":
                    event = values.event(keys)
                    self._events.append((len(self._firsts) - 1, event))
                    self._groups = event.groups or self._groups
        except RecordError as error:
            raise RecordError(f"line {number}: {error}") from error.__cause__

    def _undone(self, part: int, event: Event) -> bool:
        return any(first is not None and first <= event.step for first in self._firsts[part + 1 :])


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: lines have none, and beside a large library it takes as long as the parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
