"""LoRA under one tuned AdamW, and with rates of their own for A and B.

    python -m examples.lora.compare [--seeds 8] [--steps 100] [--write]

The baseline is torch alone. A row's candidates are rates of A; the geometric mean of both rates is the same in all
rows, so that each searches around the same place. Two rows say what adapters cost: all weights tuned, and none.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare, score_table, search_table
from examples.lora.train import STEPS, networks, pretrained, score, train
from examples.program import publish
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-2, 2e-2, 4e-2, 8e-2)
ALL = (2e-3, 4e-3, 8e-3, 1.6e-2)
RATIOS = (0.25, 4.0, 16.0)

Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.ModuleDict, rate: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate for whatever is trained."""
    optimizer = AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=rate, weight_decay=0.0)
    return optimizer, CosineAnnealingLR(optimizer, steps)


def plan(rate: float, ratio: float) -> Plan:
    """AdamW, with `rate` for A and `ratio` times as much for B; what is frozen needs no rule."""
    adapters = Rule("*.lora_*", label="A", optimizer="AdamW", lr=cosine(rate), weight_decay=0.0)
    return Plan([adapters] if ratio == 1 else [adapters, Rule("*.lora_B.*", label="B", lr=scale(ratio))])


def planned(model: nn.ModuleDict, rate: float, steps: int, *, ratio: float) -> tuple[Optimizer, LRScheduler]:
    """The same by a plan."""
    optimizer = GroupedOptimizer(dict(model.items()), plan(rate, ratio))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, adapters: bool = True,
    record: Path | None = None,
) -> Scores:  # fmt: skip
    """Adapt under one seed and judge on reviews that were not trained on; a rate of 0 trains nothing."""
    model = networks(seed) if adapters else pretrained()
    if rate:
        optimizer, scheduler = build(model, rate, steps)
        observer = None if record is None else Observer(optimizer, record, total_steps=steps)
        train(model, optimizer, scheduler, "search" if validation else "train", steps, seed, observer)
        if observer is not None:
            observer.close()
    return score(model, "validation" if validation else "test")


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    found = [Contestant("LoRA, one AdamW", RATES, partial(run, plain))]
    for ratio in RATIOS:
        rates = tuple(rate / math.sqrt(ratio) for rate in RATES)
        found.append(Contestant(f"LoRA, B × {ratio:g}", rates, partial(run, partial(planned, ratio=ratio))))
    found.append(Contestant("all weights, one AdamW", ALL, partial(run, plain, adapters=False)))
    return [*found, Contestant("not adapted", (0.0,), partial(run, plain, adapters=False))]


def draw(rate: float, steps: int, folder: Path) -> None:
    """How far A and B move in a training by plan.toml."""
    with tempfile.TemporaryDirectory() as records:
        run(partial(planned, ratio=4.0), rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates, lower=True)
    scores = score_table(outcomes, ["reviews", "Python's help"], 3, lower=True)
    publish(f"{scores}\n\n{search_table(outcomes, 2)}", readme, given.write)
    if given.write:
        draw(outcomes["LoRA, B × 4"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
