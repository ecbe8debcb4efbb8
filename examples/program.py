"""The end of every program of the gallery: the findings in words, and the report as a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.comparing import Outcome, rewrite, score_table, search_table
from groupwise.report import build, describe


def options(
    name: str, steps: int, argv: Sequence[str] | None, numbers: Mapping[str, int] | None = None
) -> argparse.Namespace:
    """The command line of a training: how many steps, where its record goes, and whole numbers of its own."""
    parser = argparse.ArgumentParser(description="train by plan.toml and write a report")
    for option, default in {"steps": steps, **(numbers or {})}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    return parser.parse_args(argv)


def percents(scores: Mapping[str, float]) -> str:
    """`left 97.1 %, right 96.8 %`."""
    return ", ".join(f"{what} {value:.1f} %" for what, value in scores.items())


def tell(score: str, run: Path) -> None:
    """Print the score and the findings of a run, and write its report beside its record."""
    sys.stdout.write(f"{score}\n\n")
    for sentence in describe(run).runs[0].verdict:
        sys.stdout.write(f"{sentence.tone}: {sentence.head}. {sentence.text}\n")
    build(run, run / "report.html")
    sys.stdout.write(f"\n{run / 'report.html'}\n")


def publish(tables: str, readme: Path, write: bool) -> None:
    """Print the tables of a comparison and, if they are to be written, put them into the README."""
    sys.stdout.write(f"\n{tables}\n")
    if write:
        rewrite(readme, tables)


def both_tables(outcomes: Mapping[str, Outcome], names: Sequence[str]) -> str:
    """The scores, and below them the search."""
    return f"{score_table(outcomes, names)}\n\n{search_table(outcomes)}"
