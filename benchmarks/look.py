"""One look at a model on the `meta` device:  python -m benchmarks --only look

Roles and depth from one forward (`parameters_of(model, example=…)`), beside the bare forward, which is the floor, and
beside the walk that guesses from names. Models of 50 to 833 blocks of twelve tensors, and the shapes of a language
model of 70 billion parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import Scale, Table, milliseconds
from groupwise.look import parameters_of

IDS = torch.ones(1, 4, dtype=torch.long)


class Block(nn.Module):
    """A pre-norm block with biases: twelve tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.up, self.down = (
            nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        taken = self.before(x)
        x = x + F.scaled_dot_product_attention(self.q(taken), self.k(taken), taken)
        out: torch.Tensor = x + self.down(F.relu(self.up(self.after(x))))
        return out


class Large(nn.Module):
    """A block of nine tensors, as in Llama of 70 billion parameters (80 of them)."""

    def __init__(self, width: int = 8192, inner: int = 28672, keys: int = 1024) -> None:
        super().__init__()
        self.before, self.after = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, size, bias=False) for size in (width, keys, keys, width))
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        taken = self.before(x)
        q, k, v = (part(taken).unflatten(-1, (-1, 128)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)
        x, taken = x + self.o(mixed), self.after(x)
        out: torch.Tensor = x + self.down(F.silu(self.gate(taken)) * self.up(taken))
        return out


class Model(nn.Module):
    """A table, blocks, a norm and a head."""

    def __init__(self, width: int, blocks: list[nn.Module], words: int) -> None:
        super().__init__()
        self.words, self.blocks = nn.Embedding(words, width), nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(self.norm(x))
        return out


def models() -> dict[str, Callable[[], nn.Module]]:
    """By name, made on `meta`."""

    def small(count: int) -> Model:
        return Model(64, [Block(64) for _ in range(count)], 1000)

    def large() -> Model:
        return Model(8192, [Large() for _ in range(80)], 128256)

    return {
        "50 blocks": lambda: _on_meta(lambda: small(50)),
        "200 blocks": lambda: _on_meta(lambda: small(200)),
        "833 blocks": lambda: _on_meta(lambda: small(833)),
        "70 billion": lambda: _on_meta(large),
    }


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make().eval()


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, which others on the machine disturb less than they do the clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _row(model: nn.Module) -> list[str]:
    """How many tensors, and the times of the bare forward, of the walk, of the look."""
    with torch.no_grad():
        bare = seconds(lambda: model(IDS.to("meta")))
    walk, look = seconds(lambda: parameters_of(model)), seconds(lambda: parameters_of(model, example=IDS))
    return [f"{len(list(model.parameters())):,}", *map(milliseconds, (bare, walk, look))]


def tables(scale: Scale) -> Iterator[Table]:
    """One row a model; the first look of a process loads what torch needs for it, and is not counted."""
    made = [*models().items()][: 1 if scale.quick else None]
    _row(made[0][1]())
    rows = [[name, *_row(make())] for name, make in made]
    yield Table("Roles and depth from one forward", ["model", "tensors", "bare forward", "walk", "look"], rows)
