"""A small GPT over characters: Muon for the matrices of its blocks, AdamW for the rest.

    python -m examples.char_gpt.train

The text is the help that ships inside Python (`pydoc_data.topics`, some 450,000 characters), so nothing is downloaded.
Its last tenth is the test's; the tenth before that judges the search for a rate, which trains on the first 80 %.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples.program import options, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
TEXT = "\n".join(topics.values())
CHARACTERS = sorted(set(TEXT))
STEPS, BATCH, CONTEXT, WIDTH, BLOCKS, HEADS = 200, 8, 64, 64, 2, 4


@cache
def load(validation: bool = False) -> tuple[Tensor, Tensor]:
    """The text as numbers [n]: the first 90 % and the last 10 %; for `validation` the first 80 % and the next 10 %."""
    number = {character: index for index, character in enumerate(CHARACTERS)}
    text = torch.tensor([number[character] for character in TEXT])
    tenth = len(text) // 10
    return (text[: 8 * tenth], text[8 * tenth : 9 * tenth]) if validation else (text[: 9 * tenth], text[9 * tenth :])


def windows(text: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` random stretches [count, CONTEXT] of the text, and the same one character later."""
    starts = torch.randint(len(text) - CONTEXT, (count, 1), generator=generator)
    places = starts + torch.arange(CONTEXT + 1)
    return text[places[:, :-1]], text[places[:, 1:]]


class Block(nn.Module):
    """Attention to what was before, then an MLP of four times the width; norms in front of both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in ("q", "k", "v", "out")})
        wide = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, wide, bias=False), nn.GELU(), nn.Linear(wide, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        q, k, v = (self.attention[name](normed).unflatten(2, (HEADS, -1)).transpose(1, 2) for name in "qkv")
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention["out"](seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Characters [n, length] to logits [n, length, characters] of the next one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(len(CHARACTERS), width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(BLOCKS)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(CHARACTERS), bias=False)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, characters: Tensor) -> Tensor:
        x = self.tokens(characters) + self.places.weight[: characters.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def networks(seed: int, width: int = WIDTH) -> nn.ModuleDict:
    """The model, in a mapping, as the optimizer takes it."""
    torch.manual_seed(seed)
    return nn.ModuleDict({"gpt": GPT(width)})


def loss_of(model: nn.ModuleDict, inputs: Tensor, following: Tensor) -> Tensor:
    """The mean cross-entropy of the next character, in nats."""
    return nn.functional.cross_entropy(model["gpt"](inputs).flatten(0, 1), following.flatten())


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, text: Tensor, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop. Which algorithm moves which parameter is the optimizer's affair."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = loss_of(model, *windows(text, BATCH, generator))
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, text: Tensor) -> dict[str, float]:
    """The loss on 256 windows of unseen text, always the same; infinite for a model that diverged."""
    loss = loss_of(model, *windows(text, 256, torch.Generator().manual_seed(1))).item()
    return {"test loss": loss if math.isfinite(loss) else math.inf}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("char_gpt", STEPS, argv)
    torch.set_num_threads(1)

    text, unseen = load()
    model = networks(seed=0)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, text, given.steps, seed=0, observer=observer)
    tell(f"test loss {score(model, unseen)['test loss']:.3f}", observer.path)


if __name__ == "__main__":
    main()
