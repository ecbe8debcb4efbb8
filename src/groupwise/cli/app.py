"""The commands and what they say of themselves. Whatever is heavy is imported when a command runs."""

from __future__ import annotations

import contextlib
import enum
import math
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from groupwise.cli.collector import collect_seldom
from groupwise.cli.exit_status import console, exit_status

app = typer.Typer(
    name="groupwise",
    help="Every part of a model, optimised its own way: parameter groups stated as a plan, seen before they run.",
    epilog="Start with:  groupwise demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose panels print the type of a flag, <bool>, as if it took one
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
ExampleOption = Annotated[
    str | None,
    typer.Option(
        "--example",
        metavar="PACKAGE.MODULE:EXAMPLE",
        help="What the model is run on, once, to see roles and depth in place of guessing them: a tensor, a tuple of "
        "arguments, a dict of keyword arguments, a function that makes one of these, or one that takes the model.",
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


def _count(given: str | int) -> int:
    """A whole number, as people write one: 10000, 10_000 or 1e4."""
    with contextlib.suppress(ValueError):
        return int(given)
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise typer.BadParameter(f"{given!r} is not a whole number, such as 10000")
    return int(number)


def _positive(given: str | int) -> int:
    """A whole number above 0."""
    number = _count(given)
    if number < 1:
        raise typer.BadParameter(f"{given!r} is not above 0")
    return number


Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", parser=_count, help="Updates in the whole run (total_steps).", show_default=False
    ),
]
EpochSteps = Annotated[
    int | None,
    typer.Option(
        "--epoch-steps", metavar="N", parser=_count, help="Updates in an epoch (steps_per_epoch).", show_default=False
    ),
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


Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write to a file, not to the terminal.", show_default=False),
]


class Form(enum.StrEnum):
    """How findings are printed."""

    text = "text"
    json = "json"


class Every(enum.StrEnum):
    """How often the schedulers of a program are stepped."""

    update = "update"
    epoch = "epoch"


class Format(enum.StrEnum):
    """What a report is written as."""

    html = "html"
    md = "md"
    json = "json"


def main() -> None:
    """The entry point of the command `groupwise`."""
    collect_seldom()
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


@app.command(
    short_help="Train a small network under a plan, beside others.",
    epilog="Example:  groupwise demo characters --seeds 3",
)
def demo(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which demo; --list says what there is.")] = "two-digits",
    list_: Annotated[bool, typer.Option("--list", "-l", help="Say what demos there are, and leave.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", parser=_count, help="Repeat with N seeds, show the spread.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", parser=_count, help="Updates in each training.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the records and the report go; if it exists, FOLDER-2.")
    ] = Path("groupwise-demo"),
) -> None:
    """Train a small network under a plan, beside single optimizers: real data, about half a minute, and a report."""
    with exit_status():
        from groupwise.cli.demo import Request
        from groupwise.cli.demo import demo as run

        run(Request(name, list_, seeds, steps, out), console())


@app.command(
    short_help="Begin with the plan file of a published recipe.",
    epilog="Example:  groupwise new vit-finetune > plan.toml",
)
def new(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A preset; without one, say what there is.", show_default=False)
    ] = None,
    out: Out = None,
) -> None:
    """Begin with the plan file of a published recipe for your kind of model; without a name, list them."""
    with exit_status():
        from groupwise.cli.new import new as run

        run(name, out, console())


@app.command(
    short_help="Write the plan of an existing training program.",
    epilog="Example:  groupwise adopt training.program:build -o plan.toml",
)
def adopt(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE.MODULE:FACTORY",
            help="A function without arguments that returns (model, optimizers, schedulers), or a mapping with these "
            "keys: what `groupwise audit` takes.",
            show_default=False,
        ),
    ],
    out: Out = None,
    schedulers_step: Annotated[
        Every, typer.Option("--schedulers-step", help="What the program calls scheduler.step() after.")
    ] = Every.update,
    example: ExampleOption = None,
) -> None:
    """Write the shortest plan that equals an existing program: its groups, its values and the schedulers with a twin.

    What could not be carried over is said in comments at the head of the plan.
    """
    with exit_status():
        from groupwise.cli.adopt import adopt as run

        run(program, out, schedulers_step.value, console(), example)


@app.command(
    short_help="Write the JSON Schema of plan files, for editors.",
    epilog="Example:  groupwise schema -o plan.schema.json",
)
def schema(out: Out = None) -> None:
    """Write the JSON Schema of plan files, by which editors complete and check them."""
    with exit_status():
        from groupwise.cli.schema import schema as run

        run(out, console())


@app.command(
    short_help="Show the groups and schedules of a plan on a model.",
    epilog="Example:  groupwise show plan.toml --model models.vit:build --steps 10000",
)
def show(
    plan: PlanFile,
    model: Model,
    steps: Steps = None,
    epoch_steps: EpochSteps = None,
    plot: Plot = None,
    allow: Allow = None,
    example: ExampleOption = None,
) -> None:
    """Show what a plan means for a model: its groups, their values now and at the end, and its schedules over time."""
    with exit_status():
        from groupwise.cli.lengths import Lengths
        from groupwise.cli.show import Request
        from groupwise.cli.show import show as run

        run(Request(plan, model, tuple(allow or ()), Lengths(steps, epoch_steps), plot, example), console())


@app.command(
    short_help="Show which rule decided each value of a parameter.",
    epilog="Example:  groupwise explain plan.toml backbone.layers.0.weight --model models.vit:build",
)
def explain(
    plan: PlanFile,
    parameter: Annotated[
        str, typer.Argument(metavar="PARAM", help="The dotted name of one parameter.", show_default=False)
    ],
    model: Model,
    allow: Allow = None,
    example: ExampleOption = None,
) -> None:
    """Show why a parameter is optimised as it is: for each property the rule that decided, and those it overrides."""
    with exit_status():
        from groupwise.cli.explain import explain as run

        run(plan, parameter, model, tuple(allow or ()), console(), example)


@app.command(
    short_help="Show what another plan changes for a model.",
    epilog="Example:  groupwise diff old.toml new.toml --model models.vit:build",
)
def diff(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="A plan file, or a checkpoint: .pt, .ckpt, …", show_default=False)
    ],
    after: PlanFile,
    model: Model,
    allow: Allow = None,
    example: ExampleOption = None,
) -> None:
    """Show what a plan changes for a model, compared with another plan or with the one that wrote a checkpoint.

    The exit status is 0 if both come to the same, 1 if something differs, 2 if they cannot be compared.
    """
    with exit_status():
        from groupwise.cli.diff import diff as run

        if run(before, after, model, tuple(allow or ()), console(), example):
            raise typer.Exit(1)


@app.command(
    short_help="Find the silent mistakes of a training program.",
    epilog="Example:  groupwise audit training.program:build --steps 10",
)
def audit(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE.MODULE:FACTORY",
            help="A function without arguments that returns (model, optimizers, schedulers, losses, batch), or a "
            "mapping with these keys, of which the first two are needed, 'step', one update of the loop, or 'example'; "
            "or a compiled Keras model.",
            show_default=False,
        ),
    ],
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            parser=_positive,
            help="How often to run 'step', 5 if not said.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="For people, or for programs.")] = Form.text,
    example: ExampleOption = None,
) -> None:
    """Find the silent mistakes of a training program: parameters that nobody trains, schedules that nobody reads.

    The exit status is 0 if no finding is an error, 1 if one is, 2 if there is nothing that could be audited.
    """
    with exit_status():
        from groupwise.cli.audit import audit as run

        if run(program, steps, form is Form.json, console(), example):
            raise typer.Exit(1)


def _budget(given: str | float) -> float:
    """A number above 0."""
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise typer.BadParameter(f"{given!r} is not a number above 0, such as 1.5")
    return number


@app.command(
    short_help="Try learning rates for a stated budget, and advise.",
    epilog="Example:  groupwise probe plan.toml --model models.vit:build --data data:batches --loss models.vit:loss "
    "--steps 10000 -o patch.toml",
)
def probe(
    plan: PlanFile,
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            metavar="PACKAGE.MODULE:BATCHES",
            help="Batches: a list, a DataLoader, or a function that makes them, of a seed or of nothing.",
            show_default=False,
        ),
    ],
    loss: Annotated[
        str,
        typer.Option(
            metavar="PACKAGE.MODULE:LOSS",
            help="A function of the model and a batch: a scalar, or a mapping of task to scalar.",
            show_default=False,
        ),
    ],
    steps: Steps = None,
    epoch_steps: EpochSteps = None,
    budget: Annotated[
        float,
        typer.Option(
            metavar="RUNS",
            parser=_budget,
            help="What it may cost, in runs of --steps updates; above 1.5, single rules are tried as well.",
        ),
    ] = 1.5,
    width: Annotated[
        tuple[int, int] | None,
        typer.Option(
            "--width",
            metavar="NARROW WIDE",
            help="Run at one width for a run at another, the plan's factors of shape carrying the rates; --model is "
            "then a function of a width.",
            show_default=False,
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:BATCHES", help="What short runs are judged on, as --data.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write the advice to a file, if there is any.", show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Write the picture to a file: .svg or .png.", show_default=False),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Keep what was run in a file; a probe that was interrupted goes on from it.",
            show_default=False,
        ),
    ] = None,
    allow: Allow = None,
) -> None:
    """Try learning rates on copies of a model for a stated budget, and say what that bears out: also to leave a plan.

    The advice is TOML: rules to be added to the plan, or, where one AdamW does better, a plan of its own.
    """
    with exit_status():
        from groupwise.cli.lengths import Lengths
        from groupwise.cli.probe import Request
        from groupwise.cli.probe import probe as run

        request = Request(
            plan,
            model,
            data,
            loss,
            Lengths(steps, epoch_steps),
            budget,
            width,
            validation,
            out,
            plot,
            save,
            tuple(allow or ()),
        )
        run(request, console())


@app.command(
    short_help="Say what a run was, on the terminal or in a file.",
    epilog="Example:  groupwise report runs/first runs/second -o report.html",
)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="The folder of a run; several are shown side by side. Or a report that was written before, .html or "
            ".json.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the report to a file: .html, one page that needs no network; .md or .json.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option("--format", help="The format, if the suffix of FILE does not say it.", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show a run on the terminal while it is being written.")
    ] = False,
) -> None:
    """Say what a run was: the verdict in words, then the numbers behind it, on the terminal or in a file."""
    with exit_status():
        from groupwise.cli.report import Request
        from groupwise.cli.report import report as run

        run(Request(tuple(runs), out, format.value if format else None, follow), console())
