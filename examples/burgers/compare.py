"""The raw sum, static weights and balancing, at the same steps and in the same processor time.

    python -m examples.burgers.compare [--seeds 8] [--steps 600] [--write]

The first four rows are torch alone. A gradient method needs one backward for each loss, and in so small a network what
a balancer does between them is felt. So such a row has a second one, with as many steps as fill the time of the sum.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from examples.burgers.train import STEPS, load, networks, score, train
from examples.comparing import Contestant, Scores, arguments, compare, rewrite, score_table, search_table
from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler, Rule
from groupwise.balance import ConFIG, Periodic, Uncertainty, UPGrad
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-2, 2e-2, 4e-2, 8e-2)
SUM = {"equation": 1.0, "start": 1.0, "edge": 1.0}

Make = Callable[[], Balancer | Mapping[str, float]]


def plan(rate: float) -> Plan:
    """One rule: what the rows differ in is the balance."""
    return Plan([Rule("*", label="all", optimizer="Adam", lr=cosine(rate))])


def run(
    make: Make, share: float, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None
) -> Scores:
    """Train under one seed, with a share of the steps, and judge where nothing was known to the training."""
    model, steps, balance = networks(seed), max(1, round(share * steps)), make()
    optimizer: Optimizer
    scheduler: LRScheduler
    if isinstance(balance, Balancer):
        optimizer = GroupedOptimizer(dict(model.items()), plan(rate))
        scheduler = PlanScheduler(optimizer, total_steps=steps)
    else:
        optimizer = Adam(model.named_parameters(), lr=rate)
        scheduler = LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, balance, steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, *load(validation))


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    rows: dict[str, tuple[Make, float]] = {
        "raw sum": (lambda: SUM, 1.0),
        "static, start and edge × 0.3": (lambda: SUM | {"start": 0.3, "edge": 0.3}, 1.0),
        "static, start and edge × 3": (lambda: SUM | {"start": 3.0, "edge": 3.0}, 1.0),
        "static, start and edge × 10": (lambda: SUM | {"start": 10.0, "edge": 10.0}, 1.0),
        "`Uncertainty()`": (lambda: Balancer(Uncertainty()), 1.0),
        "`UPGrad()`": (lambda: Balancer(UPGrad()), 1.0),
        "`UPGrad()`, in the time of the sum": (lambda: Balancer(UPGrad()), 0.47),
        "`ConFIG()`": (lambda: Balancer(ConFIG()), 1.0),
        "`ConFIG()`, in the time of the sum": (lambda: Balancer(ConFIG()), 0.5),
        "`Periodic(UPGrad(), 5)`, in the time of the sum": (lambda: Balancer(Periodic(UPGrad(), 5)), 0.57),
    }
    return [Contestant(name, RATES, partial(run, make, share)) for name, (make, share) in rows.items()]


def draw(rates: Sequence[float], steps: int, folder: Path) -> None:
    """The losses with the raw sum and with larger weights, and the conflicts under the raw sum."""
    with tempfile.TemporaryDirectory() as records:
        folders = [Path(records) / "raw sum", Path(records) / "static × 3"]
        for path, rate, weight in zip(folders, rates, (1.0, 3.0), strict=True):
            weights = SUM | {"start": weight, "edge": weight}
            run(partial(dict, weights), 1.0, rate, 0, steps, False, record=path)
        picture(folders, folder / "losses.svg", panel="losses", width=5, height=1.8)
        picture(folders[0], folder / "conflicts.svg", panel="conflicts", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates, lower=True)
    tables = f"{score_table(outcomes, ['error %'], lower=True)}\n\n{search_table(outcomes)}"
    sys.stdout.write(f"\n{tables}\n")
    if given.write:
        rewrite(readme, tables)
        rates = [outcomes[name].rate for name in ("raw sum", "static, start and edge × 3")]
        draw(rates, given.steps, readme.parent)


if __name__ == "__main__":
    main()
