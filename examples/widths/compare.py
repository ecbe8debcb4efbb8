"""One rate for four widths: tuned at each, and carried over from the narrowest with and without a factor of shape.

    python -m examples.widths.compare [--seeds 8] [--steps 100] [--write]

Every width is searched for a rate, without a factor (torch alone: the baseline) and with two of them. Then the rate
that was found at width 16 is used at the others. That is what a factor is for: to search where it is cheap.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from examples.comparing import Contestant, Outcome, Scores, arguments, compare, rewrite, score_table, search_table
from examples.two_branches.train import load
from examples.widths.train import STEPS, WIDTHS, networks, score, train
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, fan_in
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 1.28e-1)
WARMUP = 0.1
WIDE = ("network.2.weight", "network.4.weight", "network.6.weight")

Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.ModuleDict, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one Adam, cosine with warmup."""
    optimizer = Adam(model.named_parameters(), lr=rate)
    warmup = max(1, round(WARMUP * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, LambdaLR(optimizer, factor)


def plan(rate: float, power: float | None = -1.0) -> Plan:
    """One Adam; what multiplies hidden units has a factor of its fan-in over 16, unless `power` is None."""
    rules = [Rule("*", label="all", optimizer="Adam", lr=cosine(rate, warmup="10%"))]
    if power is not None:
        rules.append(Rule(WIDE, label="wide", lr=fan_in(WIDTHS[0], power=power)))
    return Plan(rules)


def planned(
    model: nn.ModuleDict, rate: float, steps: int, *, power: float | None = -1.0
) -> tuple[Optimizer, LRScheduler]:
    """The same by a plan."""
    optimizer = GroupedOptimizer(dict(model.items()), plan(rate, power))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, width: int, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None
) -> Scores:
    """Train under one seed and judge on scans that the training did not see; recorded in a folder if one is given."""
    scans, unseen = load(validation)
    model = networks(seed, width)
    optimizer, scheduler = build(model, rate, steps)
    observer = (
        None if record is None else Observer(optimizer, record, by="layer", every={"updates": 2}, total_steps=steps)
    )
    train(model, optimizer, scheduler, scans, steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, unseen)


BUILDERS: dict[str, Builder] = {
    "no factor": plain,
    "16 / fan-in": planned,
    "√(16 / fan-in)": partial(planned, power=-0.5),
}


def contestants(widths: Sequence[int] = WIDTHS) -> list[Contestant]:
    """In the order of the table; the first of each width is the baseline. At the narrowest, factors are 1."""
    return [
        Contestant(f"{name}, width {width}", RATES, partial(run, build, width))
        for width in widths
        for name, build in BUILDERS.items()
        if width > WIDTHS[0] or build is plain
    ]


def carried(width: int, rate: float, seeds: int, steps: int) -> dict[str, Outcome]:
    """Trainings of a width at the rate that was found at the narrowest."""
    outcomes = {}
    for name, build in BUILDERS.items():
        started = time.process_time()
        scores = [run(build, width, rate, seed, steps, False) for seed in range(seeds)]
        seconds = (time.process_time() - started) / seeds
        outcomes[f"{name}, width {width}, rate of width {WIDTHS[0]}"] = Outcome({}, rate, scores, 0.0, seconds)
    return outcomes


def draw(rate: float, steps: int, folder: Path) -> None:
    """How far each layer of the widest moves in a step at the rate of the narrowest, without a factor and with one."""
    with tempfile.TemporaryDirectory() as records:
        folders = [Path(records) / "no factor", Path(records) / "factor"]
        for path, power in zip(folders, (None, -1.0), strict=True):
            run(partial(planned, power=power), WIDTHS[-1], rate, 0, steps, False, record=path)
        picture(folders, folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given, tables = arguments(STEPS, argv), []
    searched: dict[str, Outcome] = {}
    rate = RATES[0]
    for width in WIDTHS:
        outcomes = compare(
            contestants([width]), given.seeds, given.steps, given.search_seeds, given.candidates, lower=True
        )
        searched |= outcomes
        if width == WIDTHS[0]:
            rate = outcomes[f"no factor, width {width}"].rate
        else:
            outcomes |= carried(width, rate, given.seeds, given.steps)
        tables.append(score_table(outcomes, ["test loss", "right %"], 2, lower=True))
    text = "\n\n".join([*tables, search_table(searched, 2)])
    sys.stdout.write(f"\n{text}\n")
    if given.write:
        rewrite(readme, text)
        draw(rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
