"""`groupwise demo`: the list of the demos, or one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    name: str
    list_only: bool
    seeds: int | None
    steps: int | None
    out: Path


def demo(request: Request, console: Console) -> None:
    """List the demos, or run one.

    Raises `GroupwiseError` for a name that is none, for no seed or no step, and where the data of a demo is not there.
    """
    from groupwise.demos import DEMOS, find

    if request.list_only:
        lines = Table.grid(padding=(0, 2, 0, 0))
        for name, listed in DEMOS.items():
            lines.add_row(Text(name, style="bold"), Text(listed.summary))
        console.print(lines)
        console.print(Text("\nHalf a minute each on one core:  groupwise demo NAME", style="dim"))
        return
    import torch

    chosen = find(request.name)
    torch.set_num_threads(1)  # for good: the process is this command's
    chosen.run(request.seeds, request.steps, console, request.out)
