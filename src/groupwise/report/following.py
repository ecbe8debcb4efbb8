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
from groupwise.report.document import Report
from groupwise.report.sources import describe_run
from groupwise.report.terminal import glance, view

PAUSE: Final = 2.0
"""Seconds between two looks, at least; ten times what a look takes, where that is more."""


def follow(path: Path, console: Console, wait: Callable[[float], None] = time.sleep) -> None:
    """Show the run at `path` at a glance until it is finished, then whole. Without a terminal, a line at each change.

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
            live.update(glance(describe_run(run, path.name), console.width, console.height), refresh=True)
            _until_more(run, wait, time.monotonic() - began)
    console.print(view(Report((describe_run(run, path.name),)), console.width))


def _followed(run: Run, console: Console, wait: Callable[[float], None]) -> None:
    while True:
        began, steps = time.monotonic(), run.steps
        where = f"step {steps[-1]:,}" if len(steps) else "no step yet"
        console.print(Text(f"{where}: {printable(describe_run(run, run.path.name).summary)}"), soft_wrap=True)
        if _finished(run):
            return
        _until_more(run, wait, time.monotonic() - began)


def _until_more(run: Run, wait: Callable[[float], None], took: float) -> None:
    wait(max(PAUSE, 10 * took))
    while not run.update():
        wait(PAUSE)


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
