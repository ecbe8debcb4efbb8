"""The commands and what they say of themselves. Whatever is heavy is imported when a command runs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from groupwise.cli.door import Door, console

LONGEST = 2**53
"""Steps beyond which a float no longer counts single ones."""

app = typer.Typer(
    name="groupwise",
    help="Every part of a model, optimised its own way: parameter groups stated as a plan, seen before a step is taken.",
    epilog="Start with:  groupwise demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file: .toml, .yaml or .json.", show_default=False)]
Model = Annotated[
    str,
    typer.Option(
        metavar="PACKAGE.MODULE:FACTORY",
        help="What makes the model: a function or a class that is called without arguments, or the model itself. "
        "It is looked for in the current directory first.",
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE",
        help="A package that the plan may take optimizers from, besides torch.optim. May be given several times.",
        show_default=False,
    ),
]


def main() -> None:
    """The entry point of the command `groupwise`."""
    app()


@app.callback()
def _groupwise(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    pass
