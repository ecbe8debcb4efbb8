"""`groupwise show`: the groups of a plan on a model, and the picture of its schedules, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from groupwise.cli import plot
from groupwise.cli.door import printable
from groupwise.cli.picture import picture
from groupwise.cli.resolving import resolved
from groupwise.cli.spelling import counted
from groupwise.cli.table import Lengths, table
from groupwise.errors import GroupwiseError
from groupwise.plan import Resolution
from groupwise.plan.preview import Lack, lacking, preview

_FLAGS = {"total_steps": "--steps", "steps_per_epoch": "--epoch-steps"}


@dataclass(frozen=True)
class Request:
    """What to show: a plan file on what a factory makes, for a run of some length, drawn to a file if one is named."""

    plan: Path
    model: str
    allow: Sequence[str]
    lengths: Lengths
    plot: Path | None


def show(request: Request, console: Console) -> None:
    """Print the table and the picture; write the picture if a file is asked for. Raises `GroupwiseError`."""
    resolution = resolved(request.plan, request.model, request.allow)
    write = plot.writer(request.plot) if request.plot is not None else None
    missing = list(_missing(resolution, request.lengths))
    if write is not None and missing:
        raise GroupwiseError(f"--plot needs the length of the run; {'; '.join(missing)}")
    console.print(Text(f"{_title(request)}\n", style="dim"), soft_wrap=True)
    console.print(table(resolution, request.lengths, console))
    if not resolution.scheduled:
        console.print("\nNothing is scheduled: these values hold from the first update to the last.")
    elif missing:
        console.print("\nFor the picture of the schedules, and for the values at the end:")
        for line in missing:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if request.lengths.total_steps is not None and not missing:
        _draw(request, resolution, request.lengths.total_steps, console, write)


def _draw(
    request: Request, resolution: Resolution, total_steps: int, console: Console, write: plot.Writer | None
) -> None:
    drawn = preview(resolution, total_steps, request.lengths.steps_per_epoch)
    if resolution.scheduled:
        for line in picture(drawn, console):
            console.print(line, soft_wrap=True)
    if write is not None:
        write(drawn, _title(request))
        console.print(Text(f"\nwritten to {request.plot}"), soft_wrap=True)


def _title(request: Request) -> str:
    lengths = request.lengths
    run = "" if lengths.total_steps is None else f", {counted(lengths.total_steps, 'step')}"
    epoch = "" if lengths.steps_per_epoch is None else f", {lengths.steps_per_epoch:,} an epoch"
    return printable(f"{request.plan} on {request.model}{run}{epoch}")


def _missing(resolution: Resolution, lengths: Lengths) -> Iterator[str]:
    """What waits for a length, rule by rule, and the flag that gives it."""
    lacks = lacking(resolution, lengths.total_steps, lengths.steps_per_epoch)
    for lack in lacks:
        yield f"give {_flags(lack)}: {lack.who}: {lack.property} = {lack.text}"
    if lengths.total_steps is None and not any("total_steps" in lack.needs for lack in lacks):
        yield "give --steps N, the number of updates in the run"


def _flags(lack: Lack) -> str:
    return " and ".join(f"{flag} N" for name, flag in _FLAGS.items() if name in lack.needs)
