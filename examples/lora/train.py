"""LoRA with a rate of its own for B.    python -m examples.lora.train

A character GPT is trained on Python's help (examples/char_gpt), then adapted to another kind of text, reviews of
clothes, through adapters: each matrix W of its blocks becomes W + 2 B A, with A [4, in] random, B [out, 4] zero, and W
kept. LoRA+ (Hayou et al., LoRA+: Efficient Low Rank Adaptation of Large Models, 2024) gives B a higher rate than A,
because wide networks need it; by plan.toml it has four times A's.

The reviews are those of examples/reviews: 400 to adapt to, 1,000 for the test.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples import packaged
from examples.char_gpt import train as char_gpt
from examples.program import options, tell
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, WIDTH, RANK, PRETRAINING = 100, 64, 4, 600
PARTS = {"train": (0, 400), "test": (400, 1400), "search": (0, 300), "validation": (300, 400)}
"""Which reviews, in an order shuffled once, are for what."""


@cache
def load(part: str) -> Tensor:
    """The characters [n] of one of PARTS of the reviews, as numbers; what Python's help never uses is left out."""
    import pyarrow.parquet

    path = packaged.widedeep() / "WomensClothingE-CommerceReviews.parquet.brotli"
    texts = [text for text in pyarrow.parquet.read_table(path)["Review Text"].to_pylist() if text]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))[slice(*PARTS[part])]
    number = {character: index for index, character in enumerate(char_gpt.CHARACTERS)}
    text = "\n".join(texts[at] for at in order.tolist())
    return torch.tensor([number[character] for character in text if character in number])


@cache
def _pretrained(steps: int) -> dict[str, Tensor]:
    """The weights of the GPT after so many steps on Python's help, by the plan of examples/char_gpt."""
    model = char_gpt.networks(seed=0, width=WIDTH)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(char_gpt.PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=steps)
    char_gpt.train(model, optimizer, scheduler, char_gpt.load()[0], steps, seed=0)
    return model.state_dict()


def pretrained() -> nn.ModuleDict:
    """The network that knows Python's help."""
    model = char_gpt.networks(seed=0, width=WIDTH)
    model.load_state_dict(_pretrained(PRETRAINING))
    return model


class LoRA(nn.Module):
    """A linear layer x W that is kept, and beside it 2 x A B; names and initial values are those of PEFT."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(requires_grad=False)
        self.lora_A = nn.Linear(base.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, base.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 2 * self.lora_B(self.lora_A(x))


def networks(seed: int) -> nn.ModuleDict:
    """The same with an adapter at every matrix of its blocks, and everything else kept."""
    model = pretrained().requires_grad_(requires_grad=False)
    torch.manual_seed(seed)
    for block in model["gpt"].blocks:
        for part in (block.attention, block.mlp):
            for name, layer in part.named_children():
                if isinstance(layer, nn.Linear):
                    part.set_submodule(name, LoRA(layer))
    return model


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, part: str, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop."""
    char_gpt.train(model, optimizer, scheduler, load(part), steps, seed, observer)


def score(model: nn.ModuleDict, part: str) -> dict[str, float]:
    """The losses, in nats a character, on 256 windows: of unseen reviews, and of Python's help that was never seen."""
    new, old = (char_gpt.score(model, text)["test loss"] for text in (load(part), char_gpt.load()[1]))
    return {"reviews": new, "help": old}


def main(argv: Sequence[str] | None = None) -> None:
    """Adapt by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("lora", STEPS, argv)
    torch.set_num_threads(1)

    before, model = score(pretrained(), "test"), networks(seed=0)
    optimizer = GroupedOptimizer(dict(model.items()), Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, "train", given.steps, seed=0, observer=observer)
    after = score(model, "test")
    losses = ", ".join(f"{text} {before[text]:.3f} before and {after[text]:.3f} after" for text in after)
    tell(f"loss of {losses}", observer.path)


if __name__ == "__main__":
    main()
