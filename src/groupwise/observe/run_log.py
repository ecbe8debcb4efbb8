"""The lines of a run: which steps, which events, and to whom they go.

A disk that is full must not end a training run: what cannot be written is said once, and recording stops. A sink that
fails keeps nobody else from the record: the file and the other sinks get it first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, final

import torch

from groupwise._warning import warn
from groupwise.errors import RecordError
from groupwise.observe.budget import SHARE
from groupwise.observe.cadence import Cadence
from groupwise.observe.errors import Errors
from groupwise.observe.grouping import Grouping, GroupSnapshot
from groupwise.observe.lengths import Lengths
from groupwise.observe.sinks import Sink, flat
from groupwise.records import Event, Group, Header, Step, Writer


@final
class RunLog:
    """Writes the records of one observer.

    Args:
        grouping: what the groups are.
        header: what the file says first.
        path: the folder; None writes no file.
        sinks: where else numbers go.
        errors: what becomes of a sink's errors.
        part_bytes: the size of a part.
    """

    def __init__(
        self,
        grouping: Grouping,
        header: Header,
        path: str | os.PathLike[str] | None,
        sinks: Sequence[Sink],
        errors: Errors,
        part_bytes: int,
    ) -> None:
        self._grouping, self._sinks, self._errors = grouping, tuple(sinks), errors
        for sink in self._sinks:
            if not callable(getattr(sink, "log", None)):
                raise RecordError(f"Observer: {sink!r} is no sink: it has no log(values, step)")
        self._groups = {group.name: group for group in header.groups}
        self._last = grouping.snapshot()
        self._members, self._plan = _members(self._last), grouping.plan
        self._finite, self.goes_on = True, False
        self._writer: Writer | None = None
        if path is not None:
            self._writer = Writer(path, header, part_bytes)

    def begin(self, step: int | None) -> int:
        """The number of the first update; says that a run goes on, if one does."""
        after = None if self._writer is None else self._writer.resumed_after
        self.goes_on = after is not None and step is None
        first = step if step is not None else 0 if after is None else after + 1
        if after is not None:
            self.event(first, "resumed", f"goes on at step {first}; the last step before was {after}")
        return first

    @property
    def seconds(self) -> float:
        """Seconds since the part began."""
        return 0.0 if self._writer is None else self._writer.seconds

    def step(self, record: Step) -> None:
        """Write a record, and give it to the sinks, each of which may fail for itself."""
        self._write(record)
        self._tell_nonfinite(record)
        values = flat(record) if self._sinks else {}
        for sink in self._sinks:
            self._errors.attempt(f"the sink {type(sink).__name__}", record.step, sink.log, dict(values), record.step)

    @property
    def waits(self) -> bool:
        """Whether records may be written some at a time: a sink gets each at once, in the order of its tracker."""
        return not self._sinks

    @property
    def is_heard(self) -> bool:
        """Whether anybody gets what is recorded."""
        return self._writer is not None or bool(self._sinks)

    def event(self, step: int, event: str, text: str, groups: tuple[Group, ...] | None = None) -> None:
        """Write an event."""
        self._write(Event(step, event, text, groups))

    def regrouped(self, snapshot: GroupSnapshot) -> tuple[Group, ...] | None:
        """The groups from here on, if they have changed. A step of some of them only (`only`) is no change."""
        plan = self._grouping.plan
        if plan is self._plan and snapshot is self._last:
            return None
        again, self._last, members = plan is self._plan, snapshot, _members(snapshot)
        if again and all(self._members.get(name) == names for name, names in members.items()):
            return None
        new = {group.name: group for group in self._grouping.described(snapshot)}
        before = self._groups, self._members
        self._groups = self._groups | new if again else new
        self._members, self._plan = (self._members | members if again else members), plan
        return tuple(self._groups.values()) if (self._groups, self._members) != before else None

    def close(self, step: int | None) -> None:
        """Let go of the file; at `step` say that the run is finished, with None that it is not."""
        if step is not None:
            self.event(step, "finished", "")
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _write(self, record: Step | Event) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(record)
        except RecordError as error:
            self._writer = None
            warn(f"recording stops at step {record.step}: {error}")

    def _tell_nonfinite(self, record: Step) -> None:
        """Once whenever gradients cease to be finite."""
        norms = {name: own["grad_norm"] for name, own in record.groups.items() if "grad_norm" in own}
        broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
        if broken and self._finite:
            self.event(record.step, "nonfinite", f"the gradient norm of {', '.join(broken)} is not finite")
        self._finite = not broken if norms else self._finite


def header_of(grouping: Grouping, cadence: Cadence, table: str | None, lengths: Lengths) -> Header:
    """What the first line of a run says."""
    return Header(
        by=grouping.by,
        every=cadence.every,
        groups=grouping.described(grouping.snapshot()),
        writer=_writer(),
        table=table,
        total_steps=lengths.total_steps,
        steps_per_epoch=lengths.steps_per_epoch,
        budget=SHARE if cadence.budgeted else None,
    )


def _members(snapshot: GroupSnapshot) -> dict[str, Any]:
    """The names of the parameters of each group."""
    return {
        name: tuple(member.names for member in members)
        for name, members in zip(snapshot.names, snapshot.members, strict=True)
    }


def _writer() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"groupwise {version('groupwise')}, torch {torch.__version__}"
    except PackageNotFoundError:  # run from a source tree
        return f"groupwise, torch {torch.__version__}"
