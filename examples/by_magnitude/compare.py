"""One rate, tuned, against rates by the size of the weights: grouped once, and anew every 20 steps.

    python -m examples.by_magnitude.compare [--seeds 8] [--steps 200] [--write]

The baselines are torch alone. The bound, 0.05, and the factors, 2 and 1/2, were set before the comparison.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.by_magnitude.train import EVERY, STEPS, networks, score, train
from examples.comparing import Contestant, Scores, arguments, compare
from examples.program import both_tables, publish
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.report import picture
from groupwise.schedules import cosine
from groupwise.select import magnitude

FOLDER = Path(__file__).parent
RATES = {"AdamW": (1e-3, 3e-3, 1e-2, 3e-2), "SGD": (0.05, 0.1, 0.2, 0.4)}
SETTINGS: dict[str, dict[str, Any]] = {"AdamW": {"weight_decay": 0.01}, "SGD": {"momentum": 0.9}}
BOUND = 0.05

Builder = Callable[[nn.Module, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.Module, rate: float, steps: int, *, algorithm: str) -> tuple[Optimizer, LRScheduler]:
    """Torch alone, one rate."""
    optimizer = {"AdamW": AdamW, "SGD": SGD}[algorithm](model.parameters(), lr=rate, **SETTINGS[algorithm])
    return optimizer, CosineAnnealingLR(optimizer, steps)


def plan(rate: float, *, algorithm: str = "AdamW", factor: float = 2.0) -> Plan:
    """A factor for the tensors whose mean absolute weight is below BOUND."""
    every = Rule("*", label="all", optimizer=algorithm, lr=cosine(rate), **SETTINGS[algorithm])
    return Plan([every, Rule(magnitude(below=BOUND), label="small", lr=scale(factor))])


def planned(model: nn.Module, rate: float, steps: int, **options: Any) -> tuple[Optimizer, LRScheduler]:
    """By the plan."""
    optimizer = GroupedOptimizer(model, plan(rate, **options))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, every: int = 0, record: Path | None = None
) -> Scores:
    """Train under one seed, with a regroup `every` so many steps, and judge on scans that the training did not see."""
    model = networks(seed)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    part = "search" if validation else "train"
    train(model, optimizer, scheduler, part, steps, seed, regroup_every=every, observer=observer)
    if observer is not None:
        observer.close()
    return score(model, "validation" if validation else "test")


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    found = []
    for algorithm, rates in RATES.items():
        small, large = (partial(planned, algorithm=algorithm, factor=factor) for factor in (2.0, 0.5))
        runs = {
            f"one {algorithm}": partial(run, partial(plain, algorithm=algorithm)),
            f"{algorithm}, small × 2, grouped once": partial(run, small),
            f"{algorithm}, small × 2, anew every {EVERY} steps": partial(run, small, every=EVERY),
            f"{algorithm}, small × 0.5, anew every {EVERY} steps": partial(run, large, every=EVERY),
        }
        found += [Contestant(name, rates, each) for name, each in runs.items()]
    return found


def draw(rate: float, steps: int, folder: Path) -> None:
    """The updates of both groups while tensors change from one to the other, from one training by the plan."""
    with tempfile.TemporaryDirectory() as records:
        run(planned, rate, 0, steps, False, every=EVERY, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=3)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(both_tables(outcomes, ["digit %"]), readme, given.write)
    if given.write:
        draw(outcomes[f"AdamW, small × 2, anew every {EVERY} steps"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
