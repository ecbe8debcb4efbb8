"""One rate, tuned, against rates by attribute, and against optimizers that do not follow the parameters.

    python -m examples.gaussians.compare [--seeds 8] [--steps 200] [--write]

The baseline is torch alone, with the moments carried by hand, as published code does it. So are the row that has all of
its Gaussians from the first step, which costs more time, and the three ways to get it wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare, score_table, search_table
from examples.gaussians.train import EVERY, LAST, STEPS, Follow, Gaussians, counts, load, networks, score, train
from examples.program import publish
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, scale
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES, OF_SIZES = (1e-2, 2e-2, 4e-2), (4e-2, 8e-2, 1.6e-1)
PUBLISHED = {"position": 0.032, "angle": 0.2, "colour": 0.5, "opacity": 10.0}
"""Rates over that of the sizes (Kerbl et al. 2023): 1.6e-4, 1e-3, 2.5e-3 and 0.05 over 5e-3."""

Built = tuple[Optimizer, LRScheduler, Follow]
Builder = Callable[[Gaussians, float, int], Built]
Carry = Callable[[Gaussians, Optimizer, Tensor], None]


def carried(model: Gaussians, optimizer: Optimizer, kept: Tensor, *, rows_fit: bool = True) -> None:
    """Each group gets the new tensor, and its moments: those of the rows that are kept, and zeros for the others.

    With `rows_fit=False` the first rows of the moments in their place: they belong to other Gaussians.
    """
    for group in optimizer.param_groups:
        (old,), new = group["params"], model.get_parameter(group["name"])
        state, staying = optimizer.state.pop(old), int(kept.sum())
        for moment in ("exp_avg", "exp_avg_sq"):
            rows = state[moment][kept] if rows_fit else state[moment][:staying]
            state[moment] = torch.cat([rows, torch.zeros_like(new[staying:])])
        group["params"], optimizer.state[new] = [new], state


def forgotten(model: Gaussians, optimizer: Optimizer, kept: Tensor) -> None:
    """As a new optimizer would: every group gets the new tensor, and no moment is left."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["params"] = [model.get_parameter(group["name"])]


def not_told(model: Gaussians, optimizer: Optimizer, kept: Tensor) -> None:
    """The optimizer goes on with tensors that are no longer the model's; torch says nothing."""


def plain(model: Gaussians, rate: float, steps: int, *, carry: Carry = carried) -> Built:
    """Torch alone, one rate: a group for each attribute, so that its tensor can be found again."""
    groups = [{"params": [parameter], "name": name} for name, parameter in model.named_parameters()]
    optimizer = Adam(groups, lr=rate)
    return optimizer, CosineAnnealingLR(optimizer, steps), partial(carry, model, optimizer)


def plan(rate: float, factors: Mapping[str, float]) -> Plan:
    """A factor of the rate for each attribute that is named."""
    every = Rule("*", label="all", optimizer="Adam", lr=cosine(rate), weight_decay=0.0)
    return Plan([every, *(Rule(name, lr=scale(factor)) for name, factor in factors.items())])


def planned(model: Gaussians, rate: float, steps: int, *, factors: Mapping[str, float]) -> Built:
    """By a plan, which is applied to the model as it is after each split."""
    optimizer = GroupedOptimizer(model, plan(rate, factors))

    def follow(kept: Tensor) -> None:
        optimizer.regroup(model=model, rows={"*": kept})

    return optimizer, PlanScheduler(optimizer, total_steps=steps), follow


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, whole: bool = False,
    record: Path | None = None,
) -> Scores:  # fmt: skip
    """Fit a photo under one seed, with `whole` all Gaussians from the start; judge by pixels that were not fitted."""
    fitted, unseen = load("flower.jpg" if validation else "china.jpg")
    model = networks(seed, LAST) if whole else networks(seed)
    optimizer, scheduler, follow = build(model, rate, steps)
    observer = None if record is None else Observer(optimizer, record, every=EVERY, scheduler=scheduler)
    due = () if whole else counts()
    train(model, optimizer, scheduler, follow, fitted, steps, seed, counts=due, observer=observer)
    if observer is not None:
        observer.close()
    return score(model, unseen)


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    rows = {
        "one rate": partial(run, plain),
        f"one rate, all {LAST} from the start": partial(run, plain, whole=True),
        "rates by attribute, as published": partial(run, partial(planned, factors=PUBLISHED)),
        "opacity × 5": partial(run, partial(planned, factors={"opacity": 5.0})),
        "one rate, moments thrown away": partial(run, partial(plain, carry=forgotten)),
        "one rate, moments of other rows": partial(run, partial(plain, carry=partial(carried, rows_fit=False))),
        "one rate, the optimizer not told": partial(run, partial(plain, carry=not_told)),
    }
    by_attribute = "rates by attribute, as published"
    return [Contestant(name, OF_SIZES if name == by_attribute else RATES, row) for name, row in rows.items()]


def draw(rate: float, steps: int, folder: Path) -> None:
    """How far each attribute moves, while its tensor is replaced three times."""
    with tempfile.TemporaryDirectory() as records:
        run(partial(planned, factors=PUBLISHED), rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(f"{score_table(outcomes, ['dB'], 2)}\n\n{search_table(outcomes, 1)}", readme, given.write)
    if given.write:
        draw(outcomes["rates by attribute, as published"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
