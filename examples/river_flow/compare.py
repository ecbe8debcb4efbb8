"""Static weights, four methods that weight losses and four that combine gradients, on raw losses.

    python -m examples.river_flow.compare [--seeds 8] [--steps 300] [--write]

The first four rows are torch alone. A gradient method needs one backward for each gauge, so static weights have a
second row with three times the steps. Another method of groupwise.balance is a name more in the two tuples below.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare, score_table, search_table
from examples.program import publish
from examples.river_flow.train import GAUGES, STEPS, load, networks, score, train
from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler, Rule
from groupwise.balance.methods import METHODS
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-2, 2e-2, 4e-2)
BY_LOSSES = ("LogSum", "Uncertainty", "RLW", "FAMO")
BY_GRADIENTS = ("CAGrad", "NashMTL", "UPGrad", "ConFIG")
LONGER = 3.0

Make = Callable[[], Balancer | Mapping[str, float]]


def weights(power: float, part: str = "train") -> dict[str, float]:
    """1 / v^power for each gauge, v the mean square of its changes among the hours that are trained on."""
    squares = load(part).changes.square().mean(0).tolist()
    return {gauge: square**-power for gauge, square in zip(GAUGES, squares, strict=True)}


def plan(rate: float) -> Plan:
    """One rule: what the rows differ in is the balance."""
    return Plan([Rule("*", label="all", optimizer="AdamW", lr=cosine(rate), weight_decay=0.01)])


def run(
    make: Make, longer: float, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None
) -> Scores:
    """Train under one seed and judge by hours that were not trained on."""
    model, steps, balance = networks(seed), round(longer * steps), make()
    optimizer: Optimizer
    scheduler: LRScheduler
    if isinstance(balance, Balancer):
        optimizer = GroupedOptimizer(dict(model.items()), plan(rate))
        scheduler = PlanScheduler(optimizer, total_steps=steps)
    else:
        optimizer = AdamW(model.named_parameters(), lr=rate, weight_decay=0.01)
        scheduler = CosineAnnealingLR(optimizer, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, balance, load("search" if validation else "train"), steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, "validation" if validation else "test")


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    rows: dict[str, tuple[Make, float]] = {
        "static, 1 / r.m.s.": (partial(weights, 0.5), 1.0),
        f"… {LONGER:g} × the steps": (partial(weights, 0.5), LONGER),
        "static, 1 / mean square": (partial(weights, 1.0), 1.0),
        "raw sum": (partial(weights, 0.0), 1.0),
    }
    rows |= {f"`{name}()`": (partial(Balancer, METHODS[name]()), 1.0) for name in (*BY_LOSSES, *BY_GRADIENTS)}
    return [Contestant(name, RATES, partial(run, make, longer)) for name, (make, longer) in rows.items()]


def draw(rate: float, steps: int, folder: Path) -> None:
    """The losses and the weights that Nash-MTL finds for them."""
    with tempfile.TemporaryDirectory() as records:
        run(lambda: Balancer(METHODS["NashMTL"]()), 1.0, rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "losses.svg", panel="losses", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates, lower=True)
    scores = score_table(outcomes, ["error %", "worst gauge %", "unseen days %"], lower=True)
    publish(f"{scores}\n\n{search_table(outcomes)}", readme, given.write)
    if given.write:
        draw(outcomes["`NashMTL()`"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
