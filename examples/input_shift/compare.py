"""One AdamW for all layers, tuned, against one block alone and against rates by the relative gradient.

    python -m examples.input_shift.compare [--seeds 8] [--steps 40] [--write]

The baseline is torch alone. "By relative gradient" is Auto-RGN of Lee et al. (2023), measured once on the labelled
scans before the first step: each block's rate is the base rate × its ‖g‖ / ‖w‖, over the largest of these.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare
from examples.input_shift.train import LABELS, SHIFTS, STEPS, Scans, load, pretrained, score, shifted, train
from examples.program import both_tables, publish
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SETTINGS: dict[str, Any] = {"optimizer": "AdamW", "weight_decay": 0.01}

Builder = Callable[[nn.Module, float, int, Scans], tuple[Optimizer, LRScheduler]]


def plain(model: nn.Module, rate: float, steps: int, _: Scans) -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate for every layer. (Groups only lend their names.)"""
    groups = [{"name": name, "params": list(part.parameters())} for name, part in model.named_children()]
    optimizer = AdamW(groups, lr=rate, weight_decay=SETTINGS["weight_decay"])
    return optimizer, CosineAnnealingLR(optimizer, steps)


def only(block: str, rate: float) -> Plan:
    """One block is tuned, the rest is kept."""
    kept = Rule("*", label="kept", trainable=False)
    return Plan([kept, Rule(block, lr=cosine(rate), trainable=True, **SETTINGS)])


def by_relative_gradient(model: nn.Module, rate: float, scans: Scans) -> Plan:
    """A factor for each block: its ‖g‖ / ‖w‖ on the labelled scans, over the largest."""
    parts = dict(model.named_children())
    loss = nn.functional.cross_entropy(model(scans.images), scans.digits)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    by_parameter = dict(zip(model.parameters(), gradients, strict=True))
    relative = {}
    for name, part in parts.items():
        weights, own = list(part.parameters()), [by_parameter[weight] for weight in part.parameters()]
        relative[name] = (nn.utils.get_total_norm(own) / nn.utils.get_total_norm(weights)).item()
    largest = max(relative.values())
    rules = [Rule(name, lr=scale(value / largest)) for name, value in relative.items()]
    return Plan([Rule("*", label="all", lr=cosine(rate), **SETTINGS), *rules])


def planned(
    model: nn.Module, rate: float, steps: int, scans: Scans, *, block: str | None = None
) -> tuple[Optimizer, LRScheduler]:
    """By a plan: one block, or all by their relative gradients."""
    plan = by_relative_gradient(model, rate, scans) if block is None else only(block, rate)
    optimizer = GroupedOptimizer(model, plan)
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, shift: str, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None
) -> Scores:
    """Tune under one seed, which also draws the labelled scans, and judge on scans that the tuning did not see."""
    model = pretrained(seed)
    some = load("search" if validation else "labelled").draw(LABELS, torch.Generator().manual_seed(seed))
    scans = Scans(shifted(some.images, shift), some.digits)
    if rate:
        optimizer, scheduler = build(model, rate, steps, scans)
        observer = None if record is None else Observer(optimizer, record, total_steps=steps)
        train(model, optimizer, scheduler, scans.images, scans.digits, steps, observer)
        if observer is not None:
            observer.close()
    return score(model, shift, "validation" if validation else "test")


def contestants() -> list[Contestant]:
    """For each shift in the order of the table: the baseline first."""
    builders: dict[str, Builder] = {"all layers, one AdamW": plain}
    builders |= {f"{block} alone": partial(planned, block=block) for block in ("block1", "last")}
    builders["all, by relative gradient"] = planned
    found = []
    for shift in SHIFTS:
        found += [Contestant(f"{shift}: {name}", RATES, partial(run, build, shift)) for name, build in builders.items()]
        found.append(Contestant(f"{shift}: not tuned", (0.0,), partial(run, plain, shift)))
    return found


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=2)
    tables = []
    for shift in SHIFTS:
        chosen = [contestant for contestant in contestants() if contestant.name.startswith(shift)]
        outcomes = compare(chosen, given.seeds, given.steps, given.search_seeds, given.candidates)
        tables.append(both_tables(outcomes, ["new inputs %", "clean %"]))
        if given.write and shift == SHIFTS[0]:
            draw(next(iter(outcomes.values())).rate, given.steps, readme.parent)
    publish("\n\n".join(tables), readme, given.write)


def draw(rate: float, steps: int, folder: Path) -> None:
    """The gradient of each block after the change of contrast, from one training of the baseline."""
    with tempfile.TemporaryDirectory() as records:
        run(plain, SHIFTS[0], rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "gradients.svg", panel="gradients", width=5, height=1.8)


if __name__ == "__main__":
    main()
