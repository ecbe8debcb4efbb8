"""The demos by name. What a demo needs besides this is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from groupwise.errors import GroupwiseError, unknown

if TYPE_CHECKING:
    from rich.console import Console

Run = Callable[[int | None, int | None, "Console | None", "Path | None"], object]
"""Runs a demo with a number of seeds and of steps, each by default its own, on a console, recorded in a folder."""


@dataclass(frozen=True)
class Demo:
    """What `groupwise demo --list` says of a demo, and what runs it."""

    summary: str
    run: Run


def find(name: str) -> Demo:
    """The demo of that name; for another one a `GroupwiseError` with the nearest."""
    if name not in DEMOS:
        raise GroupwiseError(unknown("demo", name, DEMOS))
    return DEMOS[name]


def _two_digits(seeds: int | None, steps: int | None, console: Console | None, out: Path | None) -> object:
    from groupwise.demos.comparison import demo

    return demo(1 if seeds is None else seeds, 400 if steps is None else steps, console, out)


def _characters(seeds: int | None, steps: int | None, console: Console | None, out: Path | None) -> object:
    from groupwise.demos.characters import Characters
    from groupwise.demos.job import compare

    return compare(Characters(), seeds, steps, console, out)


def _shift(seeds: int | None, steps: int | None, console: Console | None, out: Path | None) -> object:
    from groupwise.demos.job import compare
    from groupwise.demos.shift import Shift

    return compare(Shift(), seeds, steps, console, out)


DEMOS: Mapping[str, Demo] = {
    "two-digits": Demo("three tasks on scans, and why the losses need weights; AdamW and Muon by part", _two_digits),
    "characters": Demo("a language model of Python's help pages: Muon for matrices, AdamW for the rest", _characters),
    "shift": Demo("the input changed: which layers should learn from sixty labels?", _shift),
}
