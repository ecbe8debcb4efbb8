"""What a probe found: words first, then tables; advice as a patch of the plan, and as the plan with it."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from groupwise import _html
from groupwise._finding import Finding
from groupwise._spelling import number
from groupwise.plan import Plan
from groupwise.probing.measuring import Part, Seen
from groupwise.probing.rates import Rates, said
from groupwise.probing.rounds import Round

_MOST = 12
"""Layers in the table; the largest updates of more."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult:
    """What a probe found; `str` is words, then the tables.

    Attributes:
        words: what it comes to, a sentence each.
        patch: the advice as TOML, such that `plan + Plan.loads(patch)` follows it; empty where the plan is to stay. For
            one AdamW in the plan's place (`rates.single`) it is a plan of its own, `Plan.loads(patch)`.
        plan: the plan that follows the advice.
        findings: what is wrong, or may be: dead, frozen or unreached parts, starved ones, tasks that dominate.
        rates: how far up rates are stable, and where the best is likely.
        parts: by label, the factor more on what a rule matches; only where seeds agree beyond the noise.
        weights: the static weights advised; empty for none.
        seen: what a run of the plan as it is showed: groups, layers, tasks.
        rounds: what was tried, in order.
        cost: what it took, in runs of `total_steps` updates.
    """

    words: tuple[str, ...]
    patch: str
    plan: Plan
    findings: tuple[Finding, ...]
    rates: Rates
    parts: Mapping[str, float]
    weights: Mapping[str, float]
    seen: Seen
    rounds: tuple[Round, ...]
    cost: float

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw it to a file, .svg or .png, whole or not at all.

        Raises:
            ProbeError: another suffix, no place for a file, or matplotlib is not installed.
            OSError: the file cannot be written.
        """
        from groupwise.probing.picture import draw

        draw(self.rates, self.rounds, self.seen, path)

    def tables(self) -> Iterator[str]:
        """The tables as text: rates, groups, layers, tasks."""
        return _texts(self)

    def __repr__(self) -> str:
        likely = " to ".join(said(rate) for rate in self.rates.likely)
        return f"ProbeResult({self.rates.verdict}; rates x{likely}; cost {self.cost:.2f} runs)"

    def __str__(self) -> str:
        blocks = ["\n".join(self.words), "\n".join(map(str, self.findings)), *_texts(self)]
        head = "Plan, in the place of the one that was probed" if self.rates.single else "Patch"
        blocks += [f"{head}:\n{self.patch}"] if self.patch else []
        return "\n\n".join(block.rstrip() for block in blocks if block)

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(word)}</p>" for word in (*self.words, *map(str, self.findings)))
        tables = (_html.table(heads, rows, right=set(heads[1:])) for heads, rows in tables_of(self))
        patch = f"<pre>{html.escape(self.patch)}</pre>" if self.patch else ""
        return said + "".join(tables) + patch


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def tables_of(result: ProbeResult) -> Iterator[Table]:
    """Heads and rows: rates, groups, layers, tasks."""
    yield _rates(result.rounds)
    seen = result.seen
    heads = ("gradient", "share", "update ratio", "clip leaves")
    if seen.groups:
        yield ("group", *heads), [_part(part) for part in seen.groups]
    if len(seen.layers) > 1:
        chosen = sorted(seen.layers, key=lambda part: -part.update_ratio)[:_MOST]
        yield ("layer", *heads), [_part(part) for part in seen.layers if part in chosen]
    if seen.tasks:
        yield (
            ("task", "loss", "gradient", "share"),
            [(t.name, number(t.loss, 3), number(t.norm, 3), f"{t.share:.0%}") for t in seen.tasks],
        )


def _rates(rounds: Sequence[Round]) -> Table:
    tried = sorted({(s.adamw, s.rate) for found in rounds for s in found.runs})
    heads = ("rate", *(f"{len(found.seeds)} x {found.steps} updates" for found in rounds))
    rows = []
    for own in tried:
        cells = [next((_cell(found, s) for s in found.runs if (s.adamw, s.rate) == own), "") for found in rounds]
        rows.append((f"AdamW {own[0]:g}" if own[0] else f"x{own[1]:g}", *cells))
    return heads, rows


def _cell(found: Round, setting: object) -> str:
    """The change of the loss, in natural logarithms, or that it diverged."""
    runs = next(runs for own, runs in found.runs.items() if own == setting)
    if any(trial.diverged for trial in runs):
        return "diverged"
    scores = [score for trial in runs for score in trial.scores]
    mark = " *" if found.ranked()[0] == setting else ""
    return f"{sum(scores) / len(scores):+.3f}{mark}"


def _part(part: Part) -> tuple[str, ...]:
    clip = "" if part.clip_factor is None else f"{part.clip_factor:.2g}"
    return part.name, number(part.grad_norm, 3), f"{part.share:.0%}", f"{part.update_ratio:.1e}", clip


def _texts(result: ProbeResult) -> Iterator[str]:
    for heads, rows in tables_of(result):
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = [_line(heads, widths), "  ".join("─" * width for width in widths), *(_line(r, widths) for r in rows)]
        yield "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()
