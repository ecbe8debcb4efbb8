"""Contestants on equal terms, and their table in a README.

Every contestant gets the same data, the same networks and the same number of steps. Each searches its rate over as many
candidates, under seeds and on data that are not used again. Then all train under the same seeds, so that their scores
can be compared pair by pair.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

import torch

Scores = Mapping[str, float]
"""What was measured, by its name; the first decides."""

BEGIN, END = "<!-- table: written by `make gallery` -->", "<!-- end of the table -->"
T_95: Final = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Two-sided 95 % quantiles of Student's t by the number of pairs."""


@dataclass(frozen=True)
class Contestant:
    """A way to train: `run(rate, seed, steps, validation)` gives scores; `rates` are the candidates."""

    name: str
    rates: Sequence[float]
    run: Callable[[float, int, int, bool], Scores]


@dataclass
class Outcome:
    """What became of a contestant: mean scores of the search by rate, scores by seed, seconds of the processor."""

    searched: dict[float, float] = field(default_factory=dict)
    rate: float = math.nan
    scores: list[Scores] = field(default_factory=list)
    search_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def first(self) -> list[float]:
        """The score that decides, seed by seed."""
        return [next(iter(scores.values())) for scores in self.scores]


def compare(
    contestants: Sequence[Contestant],
    seeds: int,
    steps: int,
    search_seeds: int = 2,
    candidates: int | None = None,
    *,
    lower: bool = False,
) -> dict[str, Outcome]:
    """Search each contestant's rate, among all or the first `candidates`, then train it under `seeds` seeds.

    The highest score of the search decides, with `lower` the lowest, as of a loss.
    """
    torch.set_num_threads(1)
    best = min if lower else max
    outcomes = {}
    for contestant in contestants:
        outcome = outcomes[contestant.name] = Outcome()
        started = time.process_time()
        for rate in contestant.rates[:candidates]:
            found = [contestant.run(rate, 1000 + seed, steps, True) for seed in range(search_seeds)]
            outcome.searched[rate] = fmean(next(iter(scores.values())) for scores in found)
        outcome.rate = best(outcome.searched, key=outcome.searched.__getitem__)
        outcome.search_seconds = time.process_time() - started
        started = time.process_time()
        outcome.scores = [contestant.run(outcome.rate, seed, steps, False) for seed in range(seeds)]
        outcome.seconds = (time.process_time() - started) / seeds
        sys.stdout.write(f"{contestant.name}: rate {outcome.rate:g}, {fmean(outcome.first):.4g}\n")
        sys.stdout.flush()
    return outcomes


def score_table(outcomes: Mapping[str, Outcome], names: Sequence[str], digits: int = 1, *, lower: bool = False) -> str:
    """A row for each contestant: mean ± standard deviation over seeds, and the difference to the first contestant."""
    baseline = next(iter(outcomes.values())).first
    lines = [
        f"| | rate | {' | '.join(names)} | against the first row | search, training |",
        f"|{'---|' * (len(names) + 4)}",
    ]
    for name, outcome in outcomes.items():
        columns = [spread([scores[what] for scores in outcome.scores], digits) for what in outcome.scores[0]]
        against = paired(outcome.first, baseline, digits, lower=lower) if len(lines) > 2 else ""
        cost = f"{outcome.search_seconds:.0f} s, {outcome.seconds:.1f} s"
        lines.append(f"| {name} | {outcome.rate:g} | {' | '.join(columns)} | {against} | {cost} |")
    return "\n".join(lines)


def search_table(outcomes: Mapping[str, Outcome], digits: int = 0) -> str:
    """What decided the search, by rate: how much depends on the rate."""
    tables = []
    for rates in dict.fromkeys(tuple(outcome.searched) for outcome in outcomes.values()):
        lines = [f"| rate | {' | '.join(f'{rate:g}' for rate in rates)} |", f"|{'---|' * (len(rates) + 1)}"]
        for name, outcome in outcomes.items():
            if tuple(outcome.searched) == rates:
                lines.append(f"| {name} | {' | '.join(f'{value:.{digits}f}' for value in outcome.searched.values())} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`97.1 ± 0.4`: mean and standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def paired(values: Sequence[float], others: Sequence[float], digits: int = 1, *, lower: bool = False) -> str:
    """The mean difference seed by seed with its 95 % interval, and in how many seeds it is for the better."""
    differences = [value - other for value, other in zip(values, others, strict=True)]
    count, wins = len(differences), sum(difference != 0 and (difference < 0) == lower for difference in differences)
    if count not in T_95:
        return f"{fmean(differences):+.{digits}f}, better in {wins} of {count}"
    half = T_95[count] * stdev(differences) / math.sqrt(count)
    return f"{fmean(differences):+.{digits}f} ± {half:.{digits}f}, better in {wins} of {count}"


def rewrite(readme: Path, text: str) -> None:
    """Replace what stands between the markers of a README."""
    page = readme.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"{readme}: one pair of the markers {BEGIN} and {END} is needed")
    readme.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page), encoding="utf-8")


def arguments(steps: int, argv: Sequence[str] | None, seeds: int = 8, search_seeds: int = 2) -> argparse.Namespace:
    """The command line that every comparison has; numbers are what it does if nothing is said."""
    parser = argparse.ArgumentParser(description="run the comparison and print its tables")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--search-seeds", type=int, default=search_seeds)
    parser.add_argument("--candidates", type=int, help="search among the first of the rates only")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--write", action="store_true", help="rewrite the README's tables and pictures")
    return parser.parse_args(argv)
