"""`groupwise new`: the list of presets, or one of them as a plan file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groupwise._atomic import obstacle, replacing
from groupwise.cli.exit_status import printable
from groupwise.errors import GroupwiseError
from groupwise.presets import Preset, names, preset


def new(name: str | None, out: Path | None, console: Console) -> None:
    """List the presets, or hand one out, to the terminal or to a file that does not exist yet.

    Raises `GroupwiseError` for a name that is none, and for a file that exists or cannot be.
    """
    if name is None:
        _list(console)
    elif out is None:
        console.file.write(preset(name).text)
    else:
        _write(preset(name), out)
        console.print(Text(f"wrote {printable(str(out))}"), soft_wrap=True)


def _list(console: Console) -> None:
    """One line each where the terminal is wide enough."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name in names():
        lines.add_row(Text(name, style="bold"), Text(preset(name).summary))
    console.print(lines)
    console.print(Text("\nAs a file:  groupwise new NAME > plan.toml", style="dim"))


def _write(made: Preset, out: Path) -> None:
    if out.exists():
        raise GroupwiseError(f"{out} exists already, and may have been edited: move it away, or name another file")
    if reason := obstacle(out):
        raise GroupwiseError(f"cannot write {out}: {reason}")
    with replacing(out) as file:
        file.write(made.text.encode())
