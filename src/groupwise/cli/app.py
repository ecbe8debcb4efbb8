"""The commands and what they say of themselves. Whatever is heavy is imported when a command runs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from groupwise.cli.door import Door, console

app = typer.Typer(
    name="groupwise",
    help="Every part of a model, optimised its own way: parameter groups stated as a plan, seen before they run.",
    epilog="Start with:  groupwise demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A plan file: .toml, .yaml or .json.", show_default=False)
]
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
Steps = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", help="Updates in the whole run (total_steps).", show_default=False),
]
EpochSteps = Annotated[
    int | None,
    typer.Option("--epoch-steps", metavar="N", help="Updates in an epoch (steps_per_epoch).", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Write the picture to a file, too: .svg, .png, or one offline .html page.",
        show_default=False,
    ),
]


def main() -> None:
    """The entry point of the command `groupwise`."""
    app(prog_name="groupwise")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"groupwise {metadata.version('groupwise')}")
        raise typer.Exit


@app.callback()
def _groupwise(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """See `help` above; a callback is where typer takes the options of the whole command from."""


@app.command(epilog="Example:  groupwise demo --seeds 3")
def demo(
    seeds: Annotated[int, typer.Option(metavar="N", help="Repeat with N seeds, show the spread.")] = 1,
    steps: Annotated[int, typer.Option(metavar="N", help="Updates in each training.")] = 400,
) -> None:
    """Train a small network under a plan, beside two single optimizers: real data, less than a minute."""
    with Door():
        from groupwise.demos import demo as run

        run(seeds=seeds, steps=steps, console=console())


@app.command(epilog="Example:  groupwise show plan.toml --model models.vit:build --steps 10000")
def show(
    plan: PlanFile,
    model: Model,
    steps: Steps = None,
    epoch_steps: EpochSteps = None,
    plot: Plot = None,
    allow: Allow = None,
) -> None:
    """Show what a plan means for a model: its groups, their values now and at the end, and its schedules over time."""
    with Door():
        from groupwise.cli.lengths import Lengths
        from groupwise.cli.show import Request
        from groupwise.cli.show import show as run

        run(Request(plan, model, tuple(allow or ()), Lengths(steps, epoch_steps), plot), console())


@app.command(epilog="Example:  groupwise explain plan.toml backbone.layers.0.weight --model models.vit:build")
def explain(
    plan: PlanFile,
    parameter: Annotated[
        str, typer.Argument(metavar="PARAM", help="The dotted name of one parameter.", show_default=False)
    ],
    model: Model,
    allow: Allow = None,
) -> None:
    """Tell why a parameter is optimised as it is: for each property the rule that decided, and those it overruled."""
    with Door():
        from groupwise.cli.explain import explain as run

        run(plan, parameter, model, tuple(allow or ()), console())
