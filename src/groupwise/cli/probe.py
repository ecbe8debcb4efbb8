"""`groupwise probe`: advice on the rates of a plan file, in words, as a picture and as a patch."""

from __future__ import annotations

import functools
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from groupwise._atomic import obstacle, replacing
from groupwise.cli.exit_status import printable
from groupwise.cli.factory import callers_code, current_directory_first, load_found, load_model
from groupwise.cli.lengths import Lengths
from groupwise.errors import GroupwiseError, within
from groupwise.plan import Plan

if TYPE_CHECKING:
    from groupwise.probing import ProbeResult


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    plan: Path
    model: str
    data: str
    loss: str
    lengths: Lengths
    budget: float
    width: tuple[int, int] | None
    validation: str | None
    out: Path | None
    plot: Path | None
    save: Path | None
    allow: tuple[str, ...]


def probe(request: Request, console: Console) -> None:
    """Probe, write the patch and the picture, and print. Raises `GroupwiseError`."""
    from groupwise.probing.picture import checked_place

    plan = Plan.load(request.plan, request.allow)
    for flag, path in (("--out", request.out), ("--plot", request.plot)):
        if path is not None and (reason := obstacle(path)):
            raise GroupwiseError(f"{flag} {path}: cannot write it: {reason}")
    if request.plot is not None:
        with within("--plot"):
            checked_place(request.plot)
    with current_directory_first():
        found = _probed(request, plan)
    written = _written(found, request)  # before a word is printed: who reads may leave, as `head` does
    _show(found, console)
    for line in written:
        console.print(Text(line), soft_wrap=True)


def _probed(request: Request, plan: Plan) -> ProbeResult:
    from groupwise.probing import probe as run

    lengths = request.lengths
    if lengths.total_steps is None:
        raise GroupwiseError("--steps N: how many updates the run is to have; the budget is counted in such runs")
    data, validation = _source("--data", request.data), request.validation
    loss = load_found(request.loss, "--loss")
    if not callable(loss):
        raise GroupwiseError(f"--loss {request.loss}: it is no function of a model and a batch")
    return run(
        _model(request),
        plan,
        data,
        loss=_told(f"--loss {request.loss}", loss),
        total_steps=lengths.total_steps,
        steps_per_epoch=lengths.steps_per_epoch,
        budget=request.budget,
        validation=None if validation is None else _source("--validation", validation),
        width=request.width,
        save=request.save,
        progress=sys.stderr.isatty(),
    )


def _model(request: Request) -> Callable[..., Any]:
    """What makes the model; what is wrong with it is said before anything runs."""
    if request.width is None:
        load_model(request.model)
        return functools.partial(load_model, request.model)
    where = f"--model {request.model}"
    found = load_found(request.model, "--model")
    try:
        inspect.signature(found).bind(0)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise GroupwiseError(
            f"{where}: with --width it is a function that makes a model of a width ({error})"
        ) from None
    return _told(where, found)  # type: ignore[arg-type]


def _source(flag: str, spec: str) -> object:
    """Batches, or the function that makes them."""
    found = load_found(spec, flag)
    return _told(f"{flag} {spec}", found) if inspect.isfunction(found) else found


def _told(where: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The caller's function, whose errors are told with the place."""

    @functools.wraps(function)
    def told(*arguments: object) -> object:
        with callers_code(where):
            return function(*arguments)

    return told


def _show(found: ProbeResult, console: Console) -> None:
    """Words, findings, tables; the patch last."""
    for word in found.words:
        console.print(Text(textwrap.fill(printable(word), console.width)), soft_wrap=True)
    for finding in found.findings:
        console.print(Text(f"\n{finding.severity} {finding.check}: ", style="bold yellow"), end="", soft_wrap=True)
        console.print(Text(f"{printable(finding.message)}\n  fix: {printable(finding.remedy)}"), soft_wrap=True)
    for text in found.tables():
        console.print(Text(f"\n{text}"), soft_wrap=True)
    if found.patch:
        added = "The patch, to be added to the plan file (its rules after those that are there):"
        whole = "A plan of its own, in the place of the plan file:"
        console.print(Text(f"\n{whole if found.rates.single else added}\n"))
        console.print(Text(found.patch, style="green"), soft_wrap=True)
    else:
        console.print(Text("\nThere is no patch: the plan stays as it is."))


def _written(found: ProbeResult, request: Request) -> list[str]:
    """Write what was asked for; what is to be said of it."""
    lines = []
    if request.plot is not None:
        found.plot(request.plot)
        lines.append(f"\npicture written to {printable(str(request.plot))}")
    if request.out is not None and found.patch:
        with replacing(request.out) as file:
            file.write(found.patch.encode())
        what = "plan" if found.rates.single else "patch"
        lines.append(f"{what} written to {printable(str(request.out))}")
    elif request.out is not None:
        lines.append(f"{printable(str(request.out))} is not written")
    return lines
