"""One AdamW for both branches, tuned, against a clip for each network and a rate for each.

    python -m examples.two_branches.compare [--seeds 8] [--steps 200] [--write]

The baseline is torch alone. Differential rates have one factor, 2 for the sound, chosen once; the base rate is searched
as everybody's is. SGD has its rows because clipping acts on it in another way than on Adam, which divides by the size
of the gradient anyhow. `standardised` is the remedy that needs no optimizer: image values as the sound's.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare, rewrite, score_table, search_table
from examples.two_branches.train import STEPS, load, networks, score, train
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = {"AdamW": (1e-3, 3e-3, 6e-3, 1e-2, 2e-2, 4e-2), "SGD": (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)}
SETTINGS: dict[str, dict[str, Any]] = {"AdamW": {"weight_decay": 0.01}, "SGD": {"momentum": 0.9}}
WARMUP, BOUND = 0.05, 1.0
SOUND = {"AdamW": 2.0, "SGD": 8.0}

Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler]]


def plain(model: nn.ModuleDict, rate: float, steps: int, *, algorithm: str = "AdamW") -> tuple[Optimizer, LRScheduler]:
    """Torch alone: one rate, and one bound on the norm of all gradients together. (Groups only lend their names.)"""
    groups = [{"name": name, "params": list(network.parameters())} for name, network in model.items()]
    optimizer = {"AdamW": AdamW, "SGD": SGD}[algorithm](groups, lr=rate, **SETTINGS[algorithm])
    warmup = max(1, round(WARMUP * steps))

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), BOUND)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    optimizer.register_step_pre_hook(clip)
    return optimizer, LambdaLR(optimizer, factor)


def plan(rate: float, *, algorithm: str = "AdamW", each: bool = False, differential: bool = False) -> Plan:
    """One rule, a bound for `each` network or for all together, and with `differential` a factor for the sound."""
    clip = {"clip": clip_norm(BOUND, per="network")} if each else {}
    rules = [Rule("*", label="all", optimizer=algorithm, lr=cosine(rate, warmup="5%"), **SETTINGS[algorithm], **clip)]
    if differential:
        rules.append(Rule("sound", lr=scale(SOUND[algorithm])))
    return Plan(rules, clip=None if each else clip_norm(BOUND))


def planned(
    model: nn.ModuleDict, rate: float, steps: int, *, each: bool = False, **options: Any
) -> tuple[Optimizer, LRScheduler]:
    """The same by a plan. One model has one norm; a mapping is several networks, and no norm spans two of them."""
    optimizer = GroupedOptimizer(dict(model.items()) if each else model, plan(rate, each=each, **options))
    return optimizer, PlanScheduler(optimizer, total_steps=steps)


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, standardise: bool = False,
    record: Path | None = None,
) -> Scores:  # fmt: skip
    """Train under one seed and judge on scans that the training did not see; recorded in a folder if one is given."""
    scans, unseen = load(validation)
    model = networks(seed)
    optimizer, scheduler = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, total_steps=steps)
    train(model, optimizer, scheduler, scans, steps, seed, standardise=standardise, observer=observer)
    if observer is not None:
        observer.close()
    return score(model, unseen, standardise=standardise)


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    found = []
    for algorithm, rates in RATES.items():
        by_plan = partial(planned, algorithm=algorithm)
        builders = {
            f"one {algorithm}, one clip": partial(plain, algorithm=algorithm),
            f"{algorithm}, a clip for each network": partial(by_plan, each=True),
            f"{algorithm}, one clip, sound × {SOUND[algorithm]:g}": partial(by_plan, differential=True),
            f"{algorithm}, both": partial(by_plan, each=True, differential=True),
        }
        found += [Contestant(name, rates, partial(run, build)) for name, build in builders.items()]
        name = f"one {algorithm}, one clip, image standardised"
        build = partial(plain, algorithm=algorithm)
        found.append(Contestant(name, rates, partial(run, build, standardise=True)))
    return found


def draw(rates: Mapping[str, float], steps: int, folder: Path) -> None:
    """The panels of the gradients and of the updates, from one training each of `one AdamW` and `one SGD`."""
    for algorithm, panel in (("AdamW", "gradients"), ("SGD", "updates")):
        with tempfile.TemporaryDirectory() as records:
            build = partial(plain, algorithm=algorithm)
            run(build, rates[algorithm], 0, steps, False, record=Path(records) / "run")
            picture(Path(records) / "run", folder / f"{panel}.svg", panel=panel, width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    tables = f"{score_table(outcomes, ['number %', 'seen %', 'heard %'])}\n\n{search_table(outcomes)}"
    sys.stdout.write(f"\n{tables}\n")
    if given.write:
        rewrite(readme, tables)
        rates = {algorithm: outcomes[f"one {algorithm}, one clip"].rate for algorithm in RATES}
        draw(rates, given.steps, readme.parent)


if __name__ == "__main__":
    main()
