"""How much of a pre-trained network to change, and how fast: five ways beside one AdamW.

    python -m examples.transfer.compare [--seeds 3] [--steps 40] [--write]

The baseline is torch alone: one rate for everything. A training takes five seconds of one core, so there are three
seeds, two candidates for the rate, and one seed in the search. Factors were set before the comparison.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
ONE, HEAD = (1e-3, 3e-3), (1e-2, 3e-2)
"""Candidates: of a rate for everything, and of the head's rate where the body has another."""
SETTINGS: dict[str, Any] = {"optimizer": "AdamW", "weight_decay": 0.01}

Builder = Callable[[nn.Module, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.Module, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate."""
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=SETTINGS["weight_decay"], fused=True)
    return optimizer, CosineAnnealingLR(optimizer, steps)


def frozen(rate: float, _: int) -> Plan:
    """The head alone."""
    return Plan([Rule("*", label="body", trainable=False), Rule("_fc", trainable=True, lr=cosine(rate), **SETTINGS)])


def discriminative(rate: float, _: int) -> Plan:
    """The body at a tenth of the head's rate."""
    return Plan([Rule("*", label="all", lr=cosine(rate), **SETTINGS), Rule(~name("_fc"), label="body", lr=scale(0.1))])


def layer_wise(rate: float, _: int) -> Plan:
    """Each of the 16 blocks at 0.9 of the rate of the one above."""
    return Plan([Rule("*", label="all", lr=cosine(rate), **SETTINGS), Rule("*", lr=layer_decay(0.9))])


def gradual(rate: float, steps: int) -> Plan:
    """The body at a tenth; the head alone at first, then one more block at each twentieth of the training."""
    every = f"{max(1, steps // 20)} steps"
    slower = Rule(~name("_fc"), label="body", lr=scale(0.1))
    return Plan([Rule("*", label="all", lr=cosine(rate), trainable=unfreeze_down(every), **SETTINGS), slower])


def planned(
    model: nn.Module, rate: float, steps: int, *, plan: Callable[[float, int], Plan]
) -> tuple[Optimizer, LRScheduler]:
    """By a plan."""
    optimizer = GroupedOptimizer(model, plan(rate, steps))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(build: Builder, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None) -> Scores:
    """Train under one seed and judge on images that the training did not see."""
    model = networks(seed)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, load("search" if validation else "train"), steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, load("validation" if validation else "test"))


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    plans = {
        "body frozen": (HEAD, frozen),
        "body × 0.1": (HEAD, discriminative),
        "layer-wise × 0.9": (ONE, layer_wise),
        "body × 0.1, unfrozen gradually": (HEAD, gradual),
    }
    first = Contestant("one AdamW", ONE, partial(run, plain))
    rest = [Contestant(each, rates, partial(run, partial(planned, plan=plan))) for each, (rates, plan) in plans.items()]
    return [first, *rest]


def draw(rate: float, steps: int, folder: Path) -> None:
    """The updates of body and head, from one training by the plan."""
    with tempfile.TemporaryDirectory() as records:
        run(partial(planned, plan=discriminative), rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, seeds=3, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(both_tables(outcomes, ["kind %"]), readme, given.write)
    if given.write:
        draw(outcomes["body × 0.1"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
