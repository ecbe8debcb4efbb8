"""One AdamW, tuned, against rates by group and against Muon for the matrices, at two widths.

    python -m examples.char_gpt.compare [--seeds 8] [--steps 200] [--write]

The baseline is torch alone. On batches of so few characters a step of Muon costs nearly as much as forward and backward
do, so AdamW has a second row, with as many more steps as fill the same processor time.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from examples.char_gpt.train import STEPS, load, networks, score, train
from examples.comparing import Contestant, Scores, arguments, compare, rewrite, score_table, search_table
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.report import picture
from groupwise.schedules import cosine
from groupwise.select import role

FOLDER = Path(__file__).parent
RATES = {"AdamW": (3e-3, 6e-3, 1e-2, 2e-2), "Muon": (6e-3, 1e-2, 2e-2, 4e-2)}
LONGER = {32: 1.8, 64: 1.65}
"""The processor time of a training with Muon over that of one AdamW, by width, as first measured."""
WARMUP, TABLES = 0.05, 3.0
BETAS, DECAY = (0.9, 0.95), 0.01
MUON: dict[str, Any] = {"momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}

Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.ModuleDict, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one AdamW, cosine with warmup."""
    optimizer = AdamW(model.named_parameters(), lr=rate, betas=BETAS, weight_decay=DECAY)
    warmup = max(1, round(WARMUP * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, LambdaLR(optimizer, factor)


def plan(rate: float, *, muon: Sequence[str] = (), tables: float | None = None) -> Plan:
    """AdamW for everything, Muon for the named parts of each block, and a factor for the rate of the tables."""
    rules = [Rule("*", label="all", lr=cosine(rate, warmup="5%"), weight_decay=DECAY)]
    rules.append(Rule("*", label="rest", optimizer="AdamW", betas=BETAS))
    rules += [Rule(f"gpt.blocks.*.{part}.*", label=part, optimizer="Muon", **MUON) for part in muon]
    if tables is not None:
        rules.append(Rule(role("embedding"), label="tables", lr=scale(tables)))
    return Plan(rules)


def planned(model: nn.ModuleDict, rate: float, steps: int, **options: Any) -> tuple[Optimizer, LRScheduler]:
    """The same by a plan."""
    optimizer = GroupedOptimizer(dict(model.items()), plan(rate, **options))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, width: int, longer: float = 1.0,
    record: Path | None = None,
) -> Scores:  # fmt: skip
    """Train under one seed and judge on text that the training did not see; recorded in a folder if one is given."""
    text, unseen = load(validation)
    model, steps = networks(seed, width), round(longer * steps)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, text, steps, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, unseen)


def builders(width: int) -> dict[str, tuple[Builder, float]]:
    """By name of the row: who builds the optimizer, and how many times the steps it gets."""
    both = ("attention", "mlp")
    rows: dict[str, tuple[Builder, float]] = {
        "one AdamW": (plain, 1.0),
        f"one AdamW, {LONGER[width]:g} × the steps": (plain, LONGER[width]),
        f"AdamW, tables × {TABLES:g}": (partial(planned, tables=TABLES), 1.0),
        "Muon and AdamW by role": (partial(planned, muon=both, tables=TABLES), 1.0),
    }
    if width == max(LONGER):
        rows["… without Muon for attention"] = (partial(planned, muon=["mlp"], tables=TABLES), 1.0)
    return {f"{name}, width {width}": row for name, row in rows.items()}


def contestants(widths: Sequence[int] = tuple(LONGER)) -> list[Contestant]:
    """In the order of the tables; the first of each width is the baseline."""
    found = []
    for width in widths:
        for name, (build, longer) in builders(width).items():
            rates = RATES["AdamW" if "AdamW," in name else "Muon"]
            found.append(Contestant(name, rates, partial(run, build, width=width, longer=longer)))
    return found


def draw(steps: int, folder: Path) -> None:
    """How far each group moves in a training by plan.toml."""
    with tempfile.TemporaryDirectory() as records:
        build = partial(planned, muon=("attention", "mlp"), tables=TABLES)
        run(build, 2e-2, 0, steps, False, width=max(LONGER), record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given, tables = arguments(STEPS, argv, search_seeds=1), []
    for width in LONGER:
        outcomes = compare(
            contestants([width]), given.seeds, given.steps, given.search_seeds, given.candidates, lower=True
        )
        tables += [score_table(outcomes, ["test loss"], 3, lower=True), search_table(outcomes, 2)]
    text = "\n\n".join(tables)
    sys.stdout.write(f"\n{text}\n")
    if given.write:
        rewrite(readme, text)
        draw(given.steps, readme.parent)


if __name__ == "__main__":
    main()
