"""`groupwise show`: the groups of a plan on a model, and the picture of its schedules, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from groupwise._spelling import counted
from groupwise.cli import plot
from groupwise.cli.exit_status import printable
from groupwise.cli.lengths import FLAGS, Lengths
from groupwise.cli.picture import picture
from groupwise.cli.resolving import resolved
from groupwise.cli.table import table
from groupwise.errors import GroupwiseError
from groupwise.plan import Resolution
from groupwise.plan.preview import MissingLength, Preview, missing_lengths, preview
from groupwise.plan.time_checks import time_checks


@dataclass(frozen=True)
class Request:
    """What to show: a plan file on what a factory makes, for a run of some length, drawn to a file if one is named."""

    plan: Path
    model: str
    allow: Sequence[str]
    lengths: Lengths
    plot: Path | None
    example: str | None = None


def show(request: Request, console: Console) -> None:
    """Print the table and the picture; write the picture if a file is asked for. Raises `GroupwiseError`."""
    resolution = resolved(request.plan, request.model, request.allow, request.example)
    write = plot.writer(request.plot) if request.plot is not None else None
    lengths, missing = (
        request.lengths,
        missing_lengths(resolution, request.lengths.total_steps, request.lengths.steps_per_epoch),
    )
    total_steps = None if missing else lengths.total_steps
    if write is not None and total_steps is None:
        raise GroupwiseError(f"--plot needs {' and '.join(_flags(missing))}{_because(missing)}")
    console.print(Text(f"{_title(request)}\n", style="dim"), soft_wrap=True)
    console.print(table(resolution, lengths, console))
    drawn = preview(resolution, total_steps, lengths.steps_per_epoch) if total_steps is not None else None
    for line in _schedules(resolution, drawn, missing, console):
        console.print(line, soft_wrap=True)
    for said in time_checks(resolution, total_steps, lengths.steps_per_epoch):
        console.print(Text(f"\nnote: {printable(said)}", style="yellow"), soft_wrap=True)
    if write is not None and drawn is not None:
        write(drawn, _title(request))
        console.print(Text(f"\nwritten to {printable(str(request.plot))}"), soft_wrap=True)


def _title(request: Request) -> str:
    lengths = request.lengths
    run = "" if lengths.total_steps is None else f", {counted(lengths.total_steps, 'step')}"
    epoch = "" if lengths.steps_per_epoch is None else f", {lengths.steps_per_epoch:,} an epoch"
    return printable(f"{request.plan} on {request.model}{run}{epoch}")


def _schedules(
    resolution: Resolution, drawn: Preview | None, missing: Sequence[MissingLength], console: Console
) -> Iterator[Text]:
    """The picture, or what it takes to draw it."""
    if not resolution.scheduled:
        yield Text("\nNothing is scheduled: these values hold from the first update to the last.")
    elif drawn is not None:
        yield from picture(drawn, console)
    else:
        flags = " and ".join(_flags(missing))
        yield Text(f"\nFor the picture of the schedules, and for the values marked ?, give {flags}:")
        yield from (Text(f"  {_said(length)} needs {_needed(length)}") for length in missing)


def _flags(missing: Sequence[MissingLength]) -> list[str]:
    """The flags that are missing; the length of the run is where a picture ends, so without a reason it is that one."""
    needs = {name for length in missing for name in length.needs} or {"total_steps"}
    return [f"{flag} N" for name, flag in FLAGS.items() if name in needs]


def _because(missing: Sequence[MissingLength]) -> str:
    more = f", and {len(missing) - 1} more like it" if len(missing) > 1 else ""
    return f": {_said(missing[0])} needs {_needed(missing[0])}{more}" if missing else ""


def _said(length: MissingLength) -> str:
    return printable(f"{length.who}: {length.property} = {length.text}")


def _needed(length: MissingLength) -> str:
    return " and ".join(flag for name, flag in FLAGS.items() if name in length.needs)
