"""A job with several tasks on real data: what `compare_balancing.py` trains. Another is `examples/river_flow`.

Two digits. Two scans of `load_digits` side by side; which is left, which is right, and their sum. The squared error of
the sum is a hundred times as loud as the cross-entropies at the start. Scans are split before they are paired: the
pairs for tuning and those for the test show scans that training never shows, and not each other's either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _fresh(seed: int, build: Callable[[], Model]) -> Model:
    """A model with the initial weights of a seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
