"""`groupwise report`: what a run was, on the terminal or in a file, once or while it is being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from rich.console import Console
from rich.text import Text

from groupwise.cli.exit_status import printable
from groupwise.errors import GroupwiseError
from groupwise.report import build, describe, follow, rendered, view


@final
@dataclass(frozen=True)
class Request:
    """What a person asks for: the runs, and where and how their report is wanted."""

    runs: Sequence[Path]
    out: Path | None = None
    format: str | None = None
    follow: bool = False


def report(request: Request, console: Console) -> None:
    """Show the runs, or write their report. Raises `GroupwiseError` for what cannot be read, written or combined."""
    if request.follow:
        _follow(request, console)
    elif request.out is not None:
        console.print(
            Text(f"wrote {printable(str(build(list(request.runs), request.out, request.format)))}"), soft_wrap=True
        )
    elif request.format == "html":
        raise GroupwiseError("a page is written to a file: add -o report.html")
    elif request.format is not None:
        console.file.write(rendered(describe(list(request.runs)), request.format))
    else:
        console.print(view(describe(list(request.runs)), console.width))
        runs = " ".join(printable(str(path)) for path in request.runs)
        console.print(
            Text(f"\nAll plots, on one page: groupwise report {runs} -o report.html", style="dim"), soft_wrap=True
        )


def _follow(request: Request, console: Console) -> None:
    if request.out is not None or request.format is not None:
        raise GroupwiseError("--follow shows a run on the terminal: it goes with neither -o nor --format")
    if len(request.runs) > 1:
        raise GroupwiseError("--follow shows one run: give one")
    try:
        follow(request.runs[0], console)
    except KeyboardInterrupt:
        console.print(Text("stopped looking; the run goes on", style="dim"))
