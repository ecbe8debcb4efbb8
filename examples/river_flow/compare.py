"""Balancing methods beside static weights and the raw sum, at equal compute.

    python -m examples.river_flow.compare [--seeds 8] [--steps 200] [--write]

The baseline is torch alone: the raw sum, one AdamW, one bound on the gradient. A method whose update takes longer gets
fewer of them: COSTS, measured beside the raw sum's. Each method searches its rate as the baseline does.
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
from examples.river_flow.train import STEPS, Backward, load, networks, score, train, usual
from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler, Rule, clip_norm
from groupwise.balance import FAMO, IMTL_L, MGDA, CAGrad, Equal, NashMTL, Static, Uncertainty, UPGrad
from groupwise.report import picture
from groupwise.schedules import cosine

FOLDER = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
COSTS = {
    "raw sum": 1.0, "1 / variance": 1.1, "Uncertainty()": 1.3, "IMTL_L()": 1.3, "FAMO()": 1.4,
    "MGDA()": 4.2, "CAGrad()": 4.5, "NashMTL()": 4.3, "UPGrad()": 4.1,
}  # fmt: skip
"""The time of an update over that of the raw sum's, in one process, in turns."""


def static() -> Static:
    """Weights that divide each gauge's loss by the variance of its flow."""
    weights = usual()[1] ** -2
    return Static(dict(zip(load()[0].gauges, weights.tolist(), strict=True)))


def method(name: str) -> Any:
    """The balancing method of a row; the sum's is `Equal()`, for a record of what each task did."""
    if name == "raw sum":
        return Equal()
    if name == "1 / variance":
        return static()
    classes = (FAMO, IMTL_L, MGDA, CAGrad, NashMTL, Uncertainty, UPGrad)
    return {f"{each.__name__}()": each for each in classes}[name]()


def plain(model: nn.ModuleDict, rate: float, steps: int) -> tuple[Optimizer, LRScheduler, Backward]:
    """Torch alone: one rate, one bound, the losses summed."""
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=0.01)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    optimizer.register_step_pre_hook(clip)
    return optimizer, CosineAnnealingLR(optimizer, steps), lambda losses: sum(losses.values()).backward()  # type: ignore[union-attr]


def plan(rate: float) -> Plan:
    """One rule and one bound."""
    return Plan([Rule("*", label="all", optimizer="AdamW", lr=cosine(rate), weight_decay=0.01)], clip=clip_norm(1.0))


def balanced(model: nn.ModuleDict, rate: float, steps: int, *, name: str) -> tuple[Optimizer, LRScheduler, Backward]:
    """The same rule, and a balancer."""
    optimizer = GroupedOptimizer(model, plan(rate))
    return optimizer, PlanScheduler(optimizer, total_steps=steps), Balancer(method(name)).backward


Builder = Callable[[nn.ModuleDict, float, int], tuple[Optimizer, LRScheduler, Backward]]


def run(
    build: Builder, cost: float, rate: float, seed: int, steps: int, validation: bool, *, record: Path | None = None
) -> Scores:
    """Train under one seed, `steps / cost` updates, and judge on hours that the training did not see."""
    river, unseen = load(validation)
    model, updates = networks(seed), max(1, round(steps / cost))
    optimizer, scheduler, backward = build(model, rate, updates)
    observer = None if record is None else Observer(optimizer, record, total_steps=updates)
    train(model, optimizer, scheduler, backward, river, updates, seed, observer)
    if observer is not None:
        observer.close()
    return score(model, unseen)


def contestants() -> list[Contestant]:
    """In the order of the table; the first is the baseline."""
    builders: dict[str, Builder] = {name: partial(balanced, name=name) for name in COSTS} | {"raw sum": plain}
    return [Contestant(name, RATES, partial(run, build, COSTS[name])) for name, build in builders.items()]


def draw(rate: float, steps: int, folder: Path) -> None:
    """The loss of each gauge over its first, from one training with the raw sum."""
    with tempfile.TemporaryDirectory() as records:
        build = partial(balanced, name="raw sum")
        run(build, 1.0, rate, 0, steps, False, record=Path(records) / "run")
        picture(Path(records) / "run", folder / "losses.svg", panel="losses", height=2.4)


def main(argv: Sequence[str] | None = None, readme: Path = FOLDER / "README.md") -> None:
    """Run the comparison, print its tables, and with `--write` put them and the picture beside the README."""
    given = arguments(STEPS, argv, search_seeds=1)
    outcomes = compare(contestants(), given.seeds, given.steps, given.search_seeds, given.candidates)
    publish(both_tables(outcomes, ["explained %", "worst gauge %"]), readme, given.write)
    if given.write:
        draw(outcomes["raw sum"].rate, given.steps, readme.parent)


if __name__ == "__main__":
    main()
