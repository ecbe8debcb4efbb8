"""`groupwise schema`: the JSON Schema of plan files, for editors and validators."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from groupwise._atomic import obstacle, replacing
from groupwise.cli.exit_status import printable
from groupwise.errors import GroupwiseError
from groupwise.plan import json_schema


def schema(out: Path | None, console: Console) -> None:
    """Print the schema, or write it to a file, which is replaced if it exists.

    Raises `GroupwiseError` where no file can be.
    """
    if out is None:
        console.file.write(json_schema.text())
        return
    if reason := obstacle(out):
        raise GroupwiseError(f"cannot write {out}: {reason}")
    with replacing(out) as file:
        file.write(json_schema.text().encode())
    console.print(Text(f"wrote {printable(str(out))}"), soft_wrap=True)
