"""`groupwise new`: the list of presets, or one of them as a plan file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groupwise.cli.handing_out import hand_out
from groupwise.presets import names, preset


def new(name: str | None, out: Path | None, console: Console) -> None:
    """List the presets, or hand one out, to the terminal or to a file that does not exist yet.

    Raises `GroupwiseError` for a name that is none, and for a file that exists or cannot be.
    """
    if name is None:
        _list(console)
    else:
        hand_out(preset(name).text, out, console)


def _list(console: Console) -> None:
    """One line each where the terminal is wide enough."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name in names():
        lines.add_row(Text(name, style="bold"), Text(preset(name).summary))
    console.print(lines)
    console.print(Text("\nAs a file:  groupwise new NAME > plan.toml", style="dim"))
