"""A photo as 256 Gaussians, split and pruned while they are fitted.    python -m examples.gaussians.train

Gaussian splatting (Kerbl et al. 2023) in the plane: every Gaussian has a position, two sizes, an angle, a colour and an
opacity. Three times in mid-run the most transparent are dropped, and those whose positions have the largest gradients
are split in two. All five parameters are other tensors then, of other lengths, and the optimizer has to follow. Colours
are blended without an order, by a weighted mean (Hou et al. 2024).

The photos are scikit-learn's, 96 x 96 pixels of each. Half of the pixels are fitted, the others are the test's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.program import options, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, SIDE, FIRST, LAST = 200, 256, 96, 64, 192
SPLITS, PRUNED, SMALLER, BACKGROUND = (0.125, 0.25, 0.375), 0.05, 1.6, 1e-3
EVERY = {"updates": 5, "weights": 5}
"""Often enough to see what a split does."""

Follow = Callable[[Tensor], None]
"""`follow(kept)` is called after the model's parameters were replaced: `kept` [n] says which of the old rows are still
there, in front and in their order; the new ones are behind."""


@dataclass(frozen=True)
class Pixels:
    """Places [n, 2] from -1 to 1 and colours [n, 3] from 0 to 1."""

    places: Tensor
    colours: Tensor


@cache
def load(photo: str) -> tuple[Pixels, Pixels]:
    """Of "china.jpg" or "flower.jpg" the half of the pixels that is fitted, drawn at random once, and the others."""
    whole = torch.tensor(load_sample_image(photo)).permute(2, 0, 1)[None, :, :384, 128:512].float() / 255
    colours = nn.functional.avg_pool2d(whole, 384 // SIDE)[0].flatten(1).T
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    fitted, unseen = (Pixels(places[rows], colours[rows]) for rows in order.chunk(2))
    return fitted, unseen


class Gaussians(nn.Module):
    """`count` of them at random places, grey, all of one size and half transparent."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.position = nn.Parameter(2 * torch.rand(count, 2) - 1)
        self.size = nn.Parameter(torch.full((count, 2), -0.5 * math.log(count)))
        self.angle = nn.Parameter(math.pi * torch.rand(count))
        self.colour = nn.Parameter(torch.full((count, 3), 0.5))
        self.opacity = nn.Parameter(torch.zeros(count))

    def forward(self, places: Tensor) -> Tensor:
        """Colours [n, 3] at places [n, 2]: the Gaussians' mean by their weights there; grey where none is near."""
        cos, sin = self.angle.cos(), self.angle.sin()
        axes = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2) / self.size.exp()[..., None]
        away = (places @ axes.flatten(0, 1).T).view(len(places), -1, 2) - (axes @ self.position[..., None])[..., 0]
        weights = (nn.functional.logsigmoid(self.opacity) - away.square().sum(2) / 2).exp()
        colours: Tensor = (weights @ self.colour + 0.5 * BACKGROUND) / (weights.sum(1, keepdim=True) + BACKGROUND)
        return colours


def networks(seed: int, count: int = FIRST) -> Gaussians:
    """The Gaussians before the first step."""
    torch.manual_seed(seed)
    return Gaussians(count)


@torch.no_grad()
def split(model: Gaussians, strain: Tensor, count: int, randomness: torch.Generator) -> Tensor:
    """Drop the PRUNED share with the lowest opacity, and split those of the largest strain [n] until there are `count`.

    Each of two halves is drawn from its parent's Gaussian and is SMALLER times smaller. Returns which of the rows are
    kept; the halves are behind them.
    """
    old = len(strain)
    kept = torch.ones(old, dtype=torch.bool)
    kept[model.opacity.argsort()[: round(PRUNED * old)]] = False
    staying = int(kept.sum())
    parents = strain.masked_fill(~kept, -1).argsort(descending=True)[: min(count - staying, staying)]
    kept[parents] = False
    halves = {name: p[parents].repeat_interleave(2, 0) for name, p in model.named_parameters()}
    drawn = halves["size"].exp() * torch.randn(len(halves["size"]), 2, generator=randomness)
    cos, sin = halves["angle"].cos(), halves["angle"].sin()
    halves["position"] += torch.stack([cos * drawn[:, 0] - sin * drawn[:, 1], sin * drawn[:, 0] + cos * drawn[:, 1]], 1)
    halves["size"] -= math.log(SMALLER)
    for name, p in list(model.named_parameters()):
        setattr(model, name, nn.Parameter(torch.cat([p[kept], halves[name]])))
    return kept


def train(
    model: Gaussians, optimizer: Optimizer, scheduler: LRScheduler, follow: Follow, pixels: Pixels, steps: int,
    seed: int, *, counts: Sequence[int] = (), observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop; at each of SPLITS the parameters are replaced, and the optimizer is made to follow."""
    randomness = torch.Generator().manual_seed(seed)
    due = dict(zip((round(part * steps) for part in SPLITS), counts, strict=False))
    strain = torch.zeros(len(model.opacity))
    for step in range(steps):
        if step and step in due:
            follow(split(model, strain, due[step], randomness))
            strain = torch.zeros(len(model.opacity))
        rows = torch.randint(len(pixels.places), (BATCH,), generator=randomness)
        loss = (model(pixels.places[rows]) - pixels.colours[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if model.position.grad is not None:
            strain += model.position.grad.norm(dim=1)
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


def counts() -> list[int]:
    """How many Gaussians there are after each split: equal steps from FIRST to LAST."""
    return [FIRST + (LAST - FIRST) * (i + 1) // len(SPLITS) for i in range(len(SPLITS))]


@torch.no_grad()
def score(model: Gaussians, pixels: Pixels) -> dict[str, float]:
    """Decibels of the signal over the error (PSNR) at pixels that were not fitted."""
    error = (model(pixels.places).clamp(0, 1) - pixels.colours).square().mean().item()
    return {"dB": -10 * math.log10(error) if math.isfinite(error) else 0.0}


def main(argv: Sequence[str] | None = None) -> None:
    """Fit by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("gaussians", STEPS, argv)
    torch.set_num_threads(1)

    fitted, unseen = load("china.jpg")
    model = networks(seed=0)
    optimizer = GroupedOptimizer(model, Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")

    def follow(kept: Tensor) -> None:
        optimizer.regroup(model=model, rows={"*": kept})
        sys.stdout.write(f"{len(model.opacity)} Gaussians: {optimizer.load_report}\n")

    with Observer(optimizer, given.out, every=EVERY, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, follow, fitted, given.steps, seed=0, counts=counts(), observer=observer)
    tell(", ".join(f"{value:.1f} {what}" for what, value in score(model, unseen).items()), observer.path)


if __name__ == "__main__":
    main()
