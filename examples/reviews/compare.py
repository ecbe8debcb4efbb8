"""One dense AdamW, tuned and fused, against SparseAdam for the word table and AdamW for the rest.

    python -m examples.reviews.compare [--seeds 8] [--steps 100] [--write]

The baseline is torch alone, with the fused kernel, which takes a quarter of the default's time on so large a table. The
table's factor, 0.15, was set before the comparison and was not searched.
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
from examples.reviews.train import STEPS, load, networks, score, train
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
TABLE = 0.15

Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.ModuleDict, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate for the table and the layers. (Groups only lend their names.)"""
    groups = [{"name": name, "params": list(part.parameters())} for name, part in model.items()]
    optimizer = AdamW(groups, lr=rate, weight_decay=0.01, fused=True)
    return optimizer, CosineAnnealingLR(optimizer, steps)


def sparse(rate: float, table: float = TABLE) -> Plan:
    """SparseAdam for the table, at `table` x the rate, and AdamW for the layers."""
    layers = Rule(["trunk", "department", "stars"], label="layers", optimizer="AdamW", weight_decay=0.01)
    factor = {} if table == 1 else {"lr": scale(table)}
    return Plan([Rule("*", label="all", lr=cosine(rate)), layers, Rule("words", optimizer="SparseAdam", **factor)])


def frozen(rate: float) -> Plan:
    """The table as it came."""
    every = Rule("*", label="all", optimizer="AdamW", lr=cosine(rate), weight_decay=0.01)
    return Plan([every, Rule("words", trainable=False)])


def planned(
    model: nn.ModuleDict, rate: float, steps: int, *, plan: Callable[[float], Plan]
) -> tuple[Optimizer, LRScheduler]:
    """By a plan."""
    optimizer = GroupedOptimizer(model, plan(rate))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, by_rows: bool = True,
    pretrained: bool = True, record: Path | None = None,
) -> Scores:  # fmt: skip
    """Train under one seed and judge on reviews that the training did not see; `by_rows` makes sparse gradients."""
    model = networks(seed, sparse=by_rows, pretrained=pretrained)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, load("search" if validation else "train"), steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, load("validation" if validation else "test"))


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    two = partial(planned, plan=sparse)
    runs = {
        "one dense AdamW, fused": partial(run, plain, by_rows=False),
        "SparseAdam and AdamW, one rate": partial(run, partial(planned, plan=partial(sparse, table=1.0))),
        f"SparseAdam × {TABLE:g} and AdamW": partial(run, two),
        "table frozen, AdamW": partial(run, partial(planned, plan=frozen), by_rows=False),
        f"random table, SparseAdam × {TABLE:g} and AdamW": partial(run, two, pretrained=False),
    }
    return [Contestant(name, RATES, each) for name, each in runs.items()]


def draw(rate: float, steps: int, folder: Path) -> None:
    """The updates of the table and of the layers, from one training by the plan."""
    with tempfile.TemporaryDirectory() as records:
        run(partial(planned, plan=partial(sparse, table=1.0)), rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(both_tables(outcomes, ["department %", "stars %"]), readme, given.write)
    if given.write:
        draw(outcomes["SparseAdam and AdamW, one rate"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
