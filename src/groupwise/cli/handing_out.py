"""A plan file handed out: to standard output, or to a file that does not exist yet."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from groupwise._atomic import obstacle, replacing
from groupwise.cli.exit_status import printable
from groupwise.errors import GroupwiseError


def hand_out(text: str, out: Path | None, console: Console) -> None:
    """Write `text` to the terminal, or to `out`. Raises `GroupwiseError` for a file that exists or cannot be."""
    if out is None:
        console.file.write(text)
        return
    if out.exists():
        raise GroupwiseError(f"{out} exists already, and may have been edited: move it away, or name another file")
    if reason := obstacle(out):
        raise GroupwiseError(f"cannot write {out}: {reason}")
    with replacing(out) as file:
        file.write(text.encode())
    console.print(Text(f"wrote {printable(str(out))}"), soft_wrap=True)
