"""A character model of the text that ships with Python: `pydoc_data.topics`, the pages that `help()` shows.

Matrices under Muon, everything else under AdamW, beside one AdamW at the best of four rates; of Muon's rate two
were tried. The last tenth of the text, which has 0.5 MB, is for judging.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.optim import AdamW

from groupwise.demos.contestants import cosine_with_warmup, run_plan, shipped
from groupwise.demos.initial import initialised
from groupwise.demos.job import Batch, Entry, Job, Judged
from groupwise.demos.verdict import Standing
from groupwise.errors import GroupwiseError

CONTEXT, BATCH, WIDTH, LAYERS, HEADS = 64, 16, 96, 3, 4
_JUDGED_ON = 20
_TUNED = 3e-3  # of 1e-3, 3e-3, 6e-3 and 1.2e-2, under a seed of its own


class Text(NamedTuple):
    """Character numbers [n] to learn from and to be judged by, and how many characters there are."""

    train: torch.Tensor
    unseen: torch.Tensor
    kinds: int


@cache
def load_text() -> Text:
    """Python's help topics; without them, as in some stripped builds of Python, a `GroupwiseError`."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise GroupwiseError(
            "this demo reads pydoc_data.topics, which this Python lacks; the way out: groupwise demo two-digits"
        ) from error
    text = "\n".join(topics.values())
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    data = torch.tensor([numbers[character] for character in text])
    cut = int(0.9 * len(data))
    return Text(data[:cut], data[cut:], len(numbers))


class Block(nn.Module):
    """Causal attention and a dense part, each normed before and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, t, width] to the same."""
        normed = self.norm1(x)
        q, k, v = (part(normed).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        seen: torch.Tensor = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        wider: torch.Tensor = self.down(functional.gelu(self.up(self.norm2(x))))
        return x + wider


class CharacterModel(nn.Module):
    """0.36 million parameters: characters [n, t] to the logits [n, t, kinds] of the next."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(kinds, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, kinds, bias=False)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.token(characters) + self.place(torch.arange(characters.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


class Characters(Job):
    """Which character comes next?"""

    question = "Which character comes next in Python's own help pages? Matrices under Muon, beside one tuned AdamW."
    steps, seeds = 200, 1
    judged = Judged("loss on unseen text, nats", places=3, higher_is_better=False, luck=0.05)

    def plan(self) -> Path:
        """Of AdamW for everything, and Muon for matrices."""
        return shipped("characters.toml")

    def entries(self) -> list[Entry]:
        """The plan, and AdamW at the best of four rates."""
        return [Entry("the plan", "plan", run_plan(self.plan())), Entry("one AdamW, tuned", "tuned", _tuned)]

    def model(self, seed: int) -> nn.Module:
        """With fresh weights."""
        kinds = load_text().kinds
        return initialised(lambda: CharacterModel(kinds), seed)

    def batches(self, seed: int, steps: int) -> Iterator[Batch]:
        """Pieces of the text, and the same pieces one character on."""
        return _pieces(load_text().train, seed, steps)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the next character, in nats."""
        logits: torch.Tensor = model(batch[0])
        return functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

    @torch.no_grad()
    def judge(self, model: nn.Module, seed: int) -> float:
        """The mean loss on pieces of the unseen text, the same for everybody."""
        pieces = _pieces(load_text().unseen, 99, _JUDGED_ON)
        return sum(self.loss(model, piece).item() for piece in pieces) / _JUDGED_ON

    def moral(self, standing: Standing) -> str:
        """What to make of it."""
        return {
            "ahead": "One well-tuned AdamW is hard to beat by other rates, and easy by another algorithm for the "
            "matrices. Muon takes matrices alone, so everything else needs a group of its own.",
            "level": "At this length nobody is ahead; Muon's gain shows after some hundred steps.",
            "behind": "Here one AdamW did better, which is not what was measured at 200 and 800 steps: try those.",
        }[standing]


def _tuned(model: nn.Module, steps: int) -> tuple[AdamW, torch.optim.lr_scheduler.LRScheduler]:
    groups: list[dict[str, Any]] = [{"params": [], "name": name} for name in ("decayed", "rest")]
    for name, parameter in model.named_parameters():
        rest = parameter.ndim < 2 or name.startswith(("token", "place"))
        groups[rest]["params"].append(parameter)
    groups[1]["weight_decay"] = 0.0
    optimizer = AdamW(groups, lr=_TUNED, betas=(0.9, 0.95), weight_decay=0.01)
    return optimizer, cosine_with_warmup(optimizer, steps)


def _pieces(text: torch.Tensor, seed: int, count: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH, 1), generator=generator)
        piece = text[starts + torch.arange(CONTEXT + 1)]
        yield piece[:, :-1], piece[:, 1:]
