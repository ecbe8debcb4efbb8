"""The comparison: one plan and two honest baselines on the same scans, seed by seed, and what it means.

For every seed the three share the split of the scans, the pairs, the order of the batches and the initial weights; only
the optimizer, the scheduler and the task weights differ.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from groupwise.demos import outputs
from groupwise.demos.contestants import PLAN_FILE, Contestant, naive, planned, shipped, tuned
from groupwise.demos.initial import initialised
from groupwise.demos.model import TwoDigitNet
from groupwise.demos.outputs import spread
from groupwise.demos.progress import Line, Live
from groupwise.demos.train import Score, evaluate, losses, train
from groupwise.demos.two_digits import Pairs, Scans, load_scans, split
from groupwise.demos.verdict import words
from groupwise.errors import GroupwiseError
from groupwise.observe import Observer
from groupwise.optim import resolve
from groupwise.plan import Plan

BATCH = 64
"""Pairs a batch."""


@dataclass(frozen=True)
class Run:
    """One contestant under one seed: its score on unseen scans and the seconds that the training took."""

    score: Score
    seconds: float

    @property
    def digits(self) -> float:
        """Per cent of digits right, left and right together."""
        return 50 * (self.score.left + self.score.right)


@dataclass(frozen=True)
class Comparison:
    """Every run by contestant, seed by seed, and how loud the sum's loss was at the start (see `loudness`)."""

    runs: Mapping[str, Sequence[Run]]
    loudness: float


def demo(seeds: int = 1, steps: int = 400, console: Console | None = None, out: Path | None = None) -> Comparison:
    """Train the plan and the two baselines, show it all on `console`, and return the numbers.

    With `out` the first seed's trainings are recorded there (or in `out-2`, …, if it exists), and a report is written.
    It computes on as many threads as torch has; the command takes one, with which the numbers are the same on any
    machine, and which is enough for a network this small.
    Raises `GroupwiseError` when scikit-learn, which brings the scans, is not installed.
    """
    if seeds < 1 or steps < 1:
        raise GroupwiseError(f"the demo needs at least one seed and one step, not {seeds} and {steps}")
    console = console or Console()
    path, scans = shipped(), load_scans()
    folder = None if out is None else outputs.fresh(out)
    console.print("Two scanned digits side by side: which is left, which is right, and their sum?")
    console.print(f"The plan, groupwise/demos/{PLAN_FILE}, comes to this:\n")
    console.print(Text(str(resolve(TwoDigitNet(), Plan.load(path))), no_wrap=True, overflow="ignore"), soft_wrap=True)
    console.print()
    contestants = [planned(path), naive(), tuned()]
    with Live(console) as live:
        runs = {contestant.name: _runs(contestant, scans, seeds, steps, live, folder) for contestant in contestants}
    comparison = Comparison(runs, loudness(scans))
    _show(comparison, console)
    if folder is not None:
        outputs.report((folder / contestant.key for contestant in contestants), folder, console)
    return comparison


def run(contestant: Contestant, scans: Scans, seed: int, steps: int, line: Line, records: Path | None = None) -> Run:
    """Train one contestant under one seed, recorded in a folder if one is given; judge it on pairs of unseen scans."""
    generator = torch.Generator().manual_seed(seed)
    data = split(scans, generator)
    model = fresh_model(seed)
    optimizer, scheduler = contestant.build(model, steps)
    batches = data.train.batches(BATCH, steps, generator)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        observer = None if records is None else stack.enter_context(Observer(optimizer, records, total_steps=steps))
        backward, weights, clips = contestant.backward(), contestant.weights, contestant.clips
        train(model, optimizer, scheduler, batches, backward, line, observer, weights, clips)
    return Run(evaluate(model, data.test), time.perf_counter() - start)


def fresh_model(seed: int) -> TwoDigitNet:
    """The network with the weights that `torch.manual_seed(seed)` would give it, from a generator of its own."""
    return initialised(TwoDigitNet, seed)


def loudness(scans: Scans) -> float:
    """How many times the gradient of the sum's loss outweighs a digit's on the convolutions, before the first step."""
    generator = torch.Generator().manual_seed(0)
    batch = next(split(scans, generator).train.batches(BATCH, 1, generator))
    norms = _gradient_norms(fresh_model(0), batch)
    return norms["sum"] / fmean([norms["left"], norms["right"]])


def _gradient_norms(model: TwoDigitNet, batch: Pairs) -> dict[str, float]:
    weights = list(model.convolutions.parameters())
    by_task = losses(model(batch.images), batch.targets)
    gradients = {task: torch.autograd.grad(loss, weights, retain_graph=True) for task, loss in by_task.items()}
    return {task: torch.nn.utils.get_total_norm(parts).item() for task, parts in gradients.items()}


def _runs(contestant: Contestant, scans: Scans, seeds: int, steps: int, live: Live, folder: Path | None) -> list[Run]:
    names = [f"{contestant.name}" + (f" ({seed + 1})" if seeds > 1 else "") for seed in range(seeds)]
    records = [None if folder is None or seed else folder / contestant.key for seed in range(seeds)]
    return [run(contestant, scans, seed, steps, live.line(names[seed], steps), records[seed]) for seed in range(seeds)]


def _show(comparison: Comparison, console: Console) -> None:
    seeds = len(next(iter(comparison.runs.values())))
    title = "On pairs of unseen scans" + (f", mean ± sd of {seeds} seeds" if seeds > 1 else "")
    table = Table("", title=title, title_justify="left")
    for heading in ("left %", "right %", "sum off by", "seconds"):
        table.add_column(heading, justify="right")
    for name, runs in comparison.runs.items():
        table.add_row(name, *_cells(runs))
    console.print()
    console.print(table)
    plan, usual, careful = ([run.digits for run in runs] for runs in comparison.runs.values())
    for sentence in words(plan, usual, careful, comparison.loudness):
        console.print(f"• {escape(sentence)}")


def _cells(runs: Sequence[Run]) -> list[str]:
    return [
        spread([100 * run.score.left for run in runs], 1),
        spread([100 * run.score.right for run in runs], 1),
        spread([run.score.sum_error for run in runs], 2),
        spread([run.seconds for run in runs], 1),
    ]
