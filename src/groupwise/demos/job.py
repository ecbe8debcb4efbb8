"""A job with one loss, and the ways to train it side by side: same data, same initial weights, same number of updates.

What a demo is beyond its data and its plan is here: the live lines, the table, the sentences, the report.
"""

from __future__ import annotations

import contextlib
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import ClassVar, TypeAlias

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from groupwise.demos import outputs
from groupwise.demos.outputs import spread
from groupwise.demos.progress import Live
from groupwise.demos.verdict import Standing, standing
from groupwise.errors import GroupwiseError
from groupwise.observe import Observer
from groupwise.optim import resolve
from groupwise.plan import Plan

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Builder: TypeAlias = Callable[[nn.Module, int], tuple[Optimizer, LRScheduler | None]]


@dataclass(frozen=True)
class Judged:
    """What decides: its name, decimals, direction, and how far one seed may differ from another by luck."""

    name: str
    places: int
    higher_is_better: bool
    luck: float


@dataclass(frozen=True)
class Entry:
    """A way to train: `build(model, steps)` makes optimizer and scheduler; `key` is the name of its folder."""

    name: str
    key: str
    build: Builder


@dataclass(frozen=True)
class Result:
    """One entry under one seed: its score, and the seconds that the training took."""

    score: float
    seconds: float


class Job(ABC):
    """Data, a network and entries, of which the first runs the plan and the second is the baseline."""

    question: ClassVar[str]
    steps: ClassVar[int]
    seeds: ClassVar[int]
    judged: ClassVar[Judged]

    @abstractmethod
    def plan(self) -> Path:
        """The plan file."""

    @abstractmethod
    def entries(self) -> Sequence[Entry]:
        """Who takes part."""

    @abstractmethod
    def model(self, seed: int) -> nn.Module:
        """A network to begin with, the same for every entry."""

    @abstractmethod
    def batches(self, seed: int, steps: int) -> Iterator[Batch]:
        """`steps` batches, the same for every entry."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""

    @abstractmethod
    def judge(self, model: nn.Module, seed: int) -> float:
        """The score on what the training did not see."""

    @abstractmethod
    def moral(self, standing: Standing) -> str:
        """What to make of where the plan stands beside the baseline."""


def compare(
    job: Job,
    seeds: int | None = None,
    steps: int | None = None,
    console: Console | None = None,
    out: Path | None = None,
) -> Mapping[str, Sequence[Result]]:
    """Train every entry under every seed (by default as many as the job says), show it, and return the results by name.

    With `out` the first seed's trainings are recorded there (or in `out-2`, …, if it exists), and a report is written.
    """
    seeds, steps = job.seeds if seeds is None else seeds, job.steps if steps is None else steps
    if seeds < 1 or steps < 1:
        raise GroupwiseError(f"the demo needs at least one seed and one step, not {seeds} and {steps}")
    console = console or Console()
    models = [job.model(seed) for seed in range(seeds)]
    folder = None if out is None else outputs.fresh(out)
    console.print(job.question)
    console.print(f"The plan, groupwise/demos/{job.plan().name}, comes to this:\n")
    console.print(Text(str(resolve(models[0], Plan.load(job.plan()))), no_wrap=True, overflow="ignore"), soft_wrap=True)
    console.print()
    results: dict[str, list[Result]] = {}
    with Live(console) as live:
        for entry in job.entries():
            results[entry.name] = _train_seeds(job, entry, models, steps, live, folder)
    _show(job, results, console)
    if folder is not None:
        outputs.report((folder / entry.key for entry in job.entries()), folder, console)
    return results


def _train_seeds(
    job: Job, entry: Entry, models: Sequence[nn.Module], steps: int, live: Live, folder: Path | None
) -> list[Result]:
    show = live.losses(entry.name, steps * len(models))
    return [
        train(job, entry, model, seed, steps, show, None if folder is None or seed else folder / entry.key)
        for seed, model in enumerate(models)
    ]


def train(
    job: Job, entry: Entry, model: nn.Module, seed: int, steps: int,
    show: Callable[[float], None] = lambda loss: None, records: Path | None = None,
) -> Result:  # fmt: skip
    """Train a copy of `model` as the entry does; `show` gets the loss of each step."""
    model = copy.deepcopy(model)
    optimizer, scheduler = entry.build(model, steps)
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        observer = None if records is None else stack.enter_context(Observer(optimizer, records, total_steps=steps))
        for batch in job.batches(seed, steps):
            optimizer.zero_grad()
            loss = job.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            if observer is not None:
                observer.log(loss=loss)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            show(loss.item())
    seconds = time.perf_counter() - started
    return Result(job.judge(model.eval(), seed), seconds)


def _show(job: Job, results: Mapping[str, Sequence[Result]], console: Console) -> None:
    seeds = len(next(iter(results.values())))
    title = f"{job.judged.name[0].upper()}{job.judged.name[1:]}" + (
        f", mean ± sd of {seeds} seeds" if seeds > 1 else ""
    )
    table = Table("")
    for heading in ("score", "seconds"):
        table.add_column(heading, justify="right")
    for name, found in results.items():
        scores, seconds = [result.score for result in found], [result.seconds for result in found]
        table.add_row(name, spread(scores, job.judged.places), spread(seconds, 1))
    console.print(f"\n{title}:", highlight=False)
    console.print(table)
    for sentence in words(job, results):
        console.print(f"• {escape(sentence)}")


def words(job: Job, results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Where the first entry stands beside the second, by paired differences, and what to make of it."""
    (plan, ours), (baseline, theirs), *_ = results.items()
    sign = 1 if job.judged.higher_is_better else -1
    mine, others = [sign * result.score for result in ours], [sign * result.score for result in theirs]
    place = standing(mine, others, job.judged.luck)
    gap = f"{abs(fmean(mine) - fmean(others)):.{job.judged.places}f}"
    sentence = {
        "ahead": f'"{plan}" is ahead of "{baseline}" by {gap}.',
        "level": f'"{plan}" is level with "{baseline}" ({gap} apart, within what seeds do).',
        "behind": f'"{plan}" is behind "{baseline}" by {gap}.',
    }[place]
    return [sentence, job.moral(place)]
