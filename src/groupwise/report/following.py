"""The view of a run while it is written: read on, shown again, until the run says that it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from groupwise._paths import path_of
from groupwise._spelling import printable
from groupwise.errors import RecordError
from groupwise.records import Run, read
from groupwise.report.document import Report, RunReport
from groupwise.report.progress import progress
from groupwise.report.sources import describe_run
from groupwise.report.terminal import glance, view

PAUSE: Final = 2.0
"""Seconds between two looks, at least; ten times what a look takes, where that is more."""


def follow(path: Path, console: Console, wait: Callable[[float], None] = time.sleep) -> None:
    """Show the run at `path` at a glance until it is finished, then whole. Without a terminal, a line at each change.

    A run that has had no new record for a while is said to stand: one that was killed leaves no word behind.

    Raises:
        RecordError: there is no run, or it cannot be read.
    """
    path = path_of(path, RecordError, "a run")
    run = _begun(path, console, wait)
    if not console.is_terminal:
        _followed(run, console, wait)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop", transient=True) as live:
        while not _finished(run):
            began = time.monotonic()
            found = describe_run(run, path.name, under_way=True)

            def show(quiet: float, found: RunReport = found) -> None:
                live.update(glance(found, console.width, console.height, progress(run, quiet)), refresh=True)

            show(0.0)
            _until_more(run, wait, time.monotonic() - began, show)
    console.print(view(Report((describe_run(run, path.name),)), console.width))


def _followed(run: Run, console: Console, wait: Callable[[float], None]) -> None:
    while True:
        began, finished = time.monotonic(), _finished(run)
        found = describe_run(run, run.path.name, under_way=not finished)
        console.print(Text(f"{progress(run) or 'no step yet'}: {printable(found.summary)}"), soft_wrap=True)
        if finished:
            return
        _until_more(run, wait, time.monotonic() - began, lambda quiet: None)


def _until_more(run: Run, wait: Callable[[float], None], took: float, show: Callable[[float], None]) -> None:
    """Wait for new lines, and show for how long there were none."""
    quiet = max(PAUSE, 10 * took)
    wait(quiet)
    while not run.update():
        show(quiet)
        wait(PAUSE)
        quiet += PAUSE


def _finished(run: Run) -> bool:
    return bool(run.events) and run.events[-1].event == "finished"


def _begun(path: Path, console: Console, wait: Callable[[float], None]) -> Run:
    """The run, as soon as its header is written."""
    waited = False
    while True:
        try:
            return read(path)
        except RecordError:
            if not path.is_dir() or any(part.stat().st_size for part in path.glob("part-*.jsonl")):
                raise
        if not waited:
            console.print(Text(f"waiting for the first line of {printable(str(path))}", style="dim"))
        waited = True
        wait(PAUSE)
