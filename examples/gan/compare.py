"""One rate for generator and critic, tuned, against a rate, betas and a clip for each.

    python -m examples.gan.compare [--seeds 8] [--steps 800] [--write]

The baseline is torch alone, two optimizers with the same settings. So are the rows with other betas for both, and the
one that updates the critic twice a round, with fewer rounds in the same time: a faster critic by other means.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from examples.comparing import Contestant, Scores, arguments, compare, rewrite, score_table, search_table
from examples.gan.train import EVERY, STEPS, Turn, load, networks, score, train
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.report import picture
from groupwise.schedules import linear

FOLDER = Path(__file__).parent
RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2)
BETAS = (0.5, 0.999)

Built = tuple[Turn, Sequence[LRScheduler], Optimizer | None]
Builder = Callable[[nn.ModuleDict, float, int], Built]


def plain(model: nn.ModuleDict, rate: float, steps: int, *, betas: tuple[float, float] = BETAS) -> Built:
    """Torch alone: an optimizer and a scheduler each; the gradients of the other network are switched off by hand."""
    optimizers = {name: Adam(network.parameters(), lr=rate, betas=betas) for name, network in model.items()}
    schedulers = [LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps)) for optimizer in optimizers.values()]

    @contextmanager
    def turn(name: str) -> Iterator[Optimizer]:
        others = [network for other, network in model.items() if other != name]
        for network in others:
            network.requires_grad_(False)
        try:
            yield optimizers[name]
        finally:
            for network in others:
                network.requires_grad_(True)

    return turn, schedulers, None


def plan(
    rate: float, *, betas: tuple[float, float] = BETAS, critic: float = 1.0,
    critic_betas: tuple[float, float] | None = None, clip: bool = False,
) -> Plan:  # fmt: skip
    """One rule for both, and for the critic a factor of the rate, betas or a clip of its own."""
    rules = [Rule("*", label="all", optimizer="Adam", lr=linear(rate, 0.0), betas=betas)]
    if critic != 1.0:
        rules.append(Rule("critic", lr=scale(critic)))
    if critic_betas is not None:
        rules.append(Rule("critic", label="critic's betas", betas=critic_betas))
    if clip:
        rules.append(Rule("critic", label="critic's clip", clip=clip_norm(1.0)))
    return Plan(rules)


def planned(
    model: nn.ModuleDict, rate: float, steps: int, *, critic: float = 1.0,
    critic_betas: tuple[float, float] | None = None, clip: bool = False,
) -> Built:  # fmt: skip
    """By a plan: one optimizer, one scheduler."""
    optimizer = GroupedOptimizer(dict(model.items()), plan(rate, critic=critic, critic_betas=critic_betas, clip=clip))
    return optimizer.only, [PlanScheduler(optimizer, total_steps=steps)], optimizer


def run(
    build: Builder, rate: float, seed: int, steps: int, validation: bool, *, critic_updates: int = 1,
    share: float = 1.0, record: Path | None = None,
) -> Scores:  # fmt: skip
    """Train under one seed, with a share of the rounds, and judge beside scans that the training did not see."""
    scans, unseen = load(validation)
    model, steps = networks(seed), max(1, round(share * steps))
    turn, schedulers, optimizer = build(model, rate, steps)
    if record is None or optimizer is None:
        train(model, turn, schedulers, scans, steps, seed, critic_updates=critic_updates)
    else:
        with Observer(optimizer, record, by="network", every=EVERY, scheduler=schedulers[0]) as observer:
            train(model, turn, schedulers, scans, steps, seed, critic_updates=critic_updates, observer=observer)
    return score(model, unseen)


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    twice = partial(run, plain, critic_updates=2, share=0.67)
    rows = {
        "one rate, betas (0.5, 0.999)": partial(run, plain),
        "one rate, betas (0.9, 0.999), torch's defaults": partial(run, partial(plain, betas=(0.9, 0.999))),
        "one rate, betas (0, 0.99)": partial(run, partial(plain, betas=(0.0, 0.99))),
        "one rate, two updates of the critic, the same time": twice,
        "critic × 3": partial(run, partial(planned, critic=3.0)),
        "critic × 1/3": partial(run, partial(planned, critic=1 / 3)),
        "critic's betas (0, 0.99)": partial(run, partial(planned, critic_betas=(0.0, 0.99))),
        "critic × 3, its betas (0, 0.99)": partial(run, partial(planned, critic=3.0, critic_betas=(0.0, 0.99))),
        "critic × 3, its clip 1": partial(run, partial(planned, critic=3.0, clip=True)),
    }
    return [Contestant(name, RATES, row) for name, row in rows.items()]


def draw(rates: Sequence[float], steps: int, folder: Path) -> None:
    """How far each network moves: with one rate, and with a critic that is faster."""
    with tempfile.TemporaryDirectory() as records:
        for name, rate, critic in zip(("one rate", "critic × 3"), rates, (1.0, 3.0), strict=True):
            run(partial(planned, critic=critic), rate, 0, steps, False, record=Path(records) / name)
        folders = [Path(records) / "one rate", Path(records) / "critic × 3"]
        picture(folders, folder / "updates.svg", panel="updates", width=5, height=1.8)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates, lower=True)
    names = ["distance", "rarest digit %"]
    tables = f"{score_table(outcomes, names, 2, lower=True)}\n\n{search_table(outcomes, 1)}"
    sys.stdout.write(f"\n{tables}\n")
    if given.write:
        rewrite(readme, tables)
        rates = [outcomes[name].rate for name in ("one rate, betas (0.5, 0.999)", "critic × 3")]
        draw(rates, given.steps, readme.parent)


if __name__ == "__main__":
    main()
