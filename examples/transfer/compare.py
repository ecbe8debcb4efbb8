"""One AdamW for all layers, tuned, against the ways to fine-tune that tutorials teach.

    python -m examples.transfer.compare [--seeds 3] [--steps 50] [--write]

The baseline is torch alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare
from examples.program import both_tables, publish
from examples.transfer.train import STEPS, load, networks, score, train
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, layer_decay, scale, unfreeze_down
from groupwise.report import picture
from groupwise.schedules import cosine
from groupwise.select import name

FOLDER = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2)
HIGHER = (3e-3, 1e-2, 3e-2)
"""Where the rate is that of the head, or of the top."""

BACKBONE = ~name("_fc")
BY_PLAN: dict[str, tuple[Rule, ...]] = {
    "head alone": (Rule(BACKBONE, label="kept", trainable=False),),
    "discriminative: backbone × 0.1": (Rule(BACKBONE, label="backbone", lr=scale(0.1)),),
    "layer-wise: × 0.85 a level": (Rule("*", label="level", lr=layer_decay(0.85)),),
    "gradual unfreezing": (Rule("*", label="unfrozen", trainable=unfreeze_down("3%")),),
}

Builder = Callable[[nn.Module, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.Module, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate for every layer."""
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    return optimizer, CosineAnnealingLR(optimizer, steps)


def plan(rate: float, rules: Sequence[Rule]) -> Plan:
    """The same AdamW, and the rules that a row is about."""
    return Plan([Rule("*", label="head", optimizer="AdamW", lr=cosine(rate), weight_decay=0.01), *rules])


def planned(model: nn.Module, rate: float, steps: int, *, rules: Sequence[Rule]) -> tuple[Optimizer, LRScheduler]:
    """By a plan."""
    optimizer = GroupedOptimizer(model, plan(rate, rules))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(build: Builder, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None) -> Scores:
    """Train under one seed and judge on pictures that were not trained on."""
    model = networks(seed)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, load("search" if validation else "train"), steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, load("validation" if validation else "test"))


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    found = [Contestant("one AdamW", RATES, partial(run, plain))]
    for row, rules in BY_PLAN.items():
        rates = RATES if row == "gradual unfreezing" else HIGHER
        found.append(Contestant(row, rates, partial(run, partial(planned, rules=rules))))
    return found


def draw(rate: float, steps: int, folder: Path) -> None:
    """How far the backbone and the head move in a training with discriminative rates."""
    build = partial(planned, rules=BY_PLAN["discriminative: backbone × 0.1"])
    with tempfile.TemporaryDirectory() as records:
        run(build, rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, seeds=3, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(both_tables(outcomes, ["test %"]), readme, given.write)
    if given.write:
        draw(outcomes["discriminative: backbone × 0.1"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
