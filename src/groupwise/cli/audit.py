"""`groupwise audit`: the silent mistakes of a training program that a factory builds.

A factory returns what `groupwise.audit.audit` takes, by name or in that order; and, by name, a `step`: one update of
the program's own loop, which is then run a few times and watched. Or a compiled Keras model, which is a whole program.
"""

from __future__ import annotations

import functools
import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from groupwise.audit import SEVERITIES, Inspection, inspect, watch
from groupwise.cli.exit_status import printable
from groupwise.cli.factory import callers_code, current_directory_first, kind_of, load, load_example
from groupwise.cli.program import parts_of
from groupwise.errors import GroupwiseError, within

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "cyan"}
_STEPS = 5


def audit(spec: str, steps: int | None, as_json: bool, console: Console, example: str | None = None) -> bool:
    """Print what an audit finds; whether there is an error among it. Raises `GroupwiseError`."""
    with current_directory_first():
        made = load(spec, spec)
        inspection = _of_keras(spec, made, steps, example) or _of_torch(spec, made, steps, example)
    if as_json:
        console.print(json.dumps(_encoded(inspection), indent=2), soft_wrap=True)
    else:
        _show(inspection, spec, console)
    return bool(inspection.count("error"))


def _of_torch(spec: str, made: object, steps: int | None, example: str | None) -> Inspection:
    """What an audit finds in a program of torch."""
    parts = parts_of(spec, made, ", or a compiled Keras model")
    return _inspected(spec, parts if example is None else {**parts, "example": load_example(example)}, steps)


def _of_keras(spec: str, made: object, steps: int | None, example: str | None) -> Inspection | None:
    """What an audit finds in a compiled Keras model; None for anything else."""
    if "keras" not in sys.modules:
        return None
    from groupwise.keras import auditing

    if not auditing.is_model(made):
        return None
    if steps is not None:
        raise GroupwiseError(f"--steps {steps}: a Keras model has no loop to run; its fit is compiled")
    if example is not None:
        raise GroupwiseError(f"--example {example}: a Keras model that is built says all itself; leave it out")
    with within(spec):
        return auditing.inspect(made)


def _inspected(spec: str, parts: dict[str, Any], steps: int | None) -> Inspection:
    step = parts.pop("step", None)
    if step is None and steps is not None:
        raise GroupwiseError(
            f"--steps {steps}: there is nothing to run; return 'step', a function that makes one update of the loop"
        )
    if step is not None and not callable(step):
        raise GroupwiseError(f"{spec}: 'step' is {kind_of(step)}; it must be a function that makes one update")
    if callable(losses := parts.get("losses")) and not isinstance(losses, Mapping):
        parts["losses"] = _within_place(f"{spec}: losses", losses)
    with within(spec):
        static_image = inspect(**parts)
    if step is None:
        return static_image
    return _watched(parts, static_image, _within_place(f"{spec}: step", step), _STEPS if steps is None else steps)


def _watched(parts: Mapping[str, Any], static_image: Inspection, step: Callable[[], object], steps: int) -> Inspection:
    """What was found before the loop ran, and what it shows beyond that."""
    with watch(parts["model"], parts["optimizers"], parts.get("schedulers", ()), steps=steps) as watched:
        for _ in range(steps):
            step()
    found = watched.inspection
    known = {finding.check for finding in static_image.findings}
    findings = static_image.findings + [finding for finding in found.findings if finding.check not in known]
    skipped = {name: need for name, need in static_image.skipped.items() if name in found.skipped}
    ran = tuple(dict.fromkeys((*static_image.ran, *found.ran)))
    return Inspection(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)), ran, skipped)


def _within_place(where: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The caller's function, whose errors are told with the place."""

    @functools.wraps(function)
    def told(*arguments: object) -> object:
        with callers_code(where):
            return function(*arguments)

    return told


def _show(inspection: Inspection, spec: str, console: Console) -> None:
    console.print(Text(f"{printable(spec)}\n", style="dim"), soft_wrap=True)
    for finding in inspection.findings:
        console.print(Text.assemble((finding.severity, _STYLES[finding.severity]), " ", (finding.check, "bold")))
        console.print(Text(_paragraph(finding.message, console.width)), soft_wrap=True)
        console.print(Text(f"{_paragraph(f'fix: {finding.remedy}', console.width)}\n", style="green"), soft_wrap=True)
    for fact in inspection.facts:
        console.print(Text(textwrap.fill(printable(fact), console.width), style="dim"), soft_wrap=True)
    counts, *missing = inspection.summary()
    console.print(Text(printable(counts), style="bold"), soft_wrap=True)
    for line in missing:
        console.print(Text(textwrap.fill(printable(line), console.width), style="dim"), soft_wrap=True)


def _paragraph(text: str, width: int) -> str:
    """Indented, and broken between words alone: code is copied from here."""
    return textwrap.fill(
        printable(text), width, initial_indent="  ", subsequent_indent="  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _encoded(inspection: Inspection) -> dict[str, Any]:
    findings = [
        {name: getattr(finding, name) for name in ("check", "severity", "parameters", "message", "remedy")}
        for finding in inspection.findings
    ]
    told = {"findings": findings, "ran": inspection.ran, "skipped": dict(inspection.skipped)}
    return told | ({"facts": inspection.facts} if inspection.facts else {})
