"""What a demo leaves behind: a run of each contestant, and one report of them side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console

from groupwise.errors import GroupwiseError
from groupwise.report import build

REPORT = "report.html"


def fresh(folder: Path) -> Path:
    """The folder if there is none, else the first free one of `folder-2`, `folder-3`, …"""
    others = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(path for path in itertools.chain([folder], others) if not path.exists())


def report(runs: Iterable[Path], folder: Path, console: Console) -> None:
    """Write the report of some runs into a folder, and say where everything is.

    Without plotly, which the page needs, it says so and how the runs can be read nevertheless.
    """
    folders = list(runs)
    names = " ".join(str(path) for path in folders)
    console.print(f"\nRecords of the first seed: {names}", soft_wrap=True, highlight=False)
    try:
        build(folders, folder / REPORT)
    except GroupwiseError as error:
        console.print(f"No page: {error}", soft_wrap=True, highlight=False, markup=False)
        console.print(f"In the terminal: groupwise report {names}", soft_wrap=True, highlight=False)
    else:
        console.print(f"The report: {folder / REPORT}", soft_wrap=True, highlight=False)


def spread(values: Sequence[float], places: int) -> str:
    """`97.1 ± 0.4`: mean and standard deviation, of one value itself alone."""
    deviation = f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{places}f}{deviation}"
