"""Edits of a model in mid-run, each with what a person would do to the state of a plain torch optimizer by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from groupwise import Plan, Rule
from groupwise.select import name, ndim

Moves = Mapping[torch.Tensor, tuple[torch.Tensor, "list[int] | None"]]
"""By new tensor: the old one whose state it gets, and which of its rows (-1 for none); None for all as they are."""


class Symmetric(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


class Net(nn.Module):
    """A word table, square blocks, and a head over the words, which may be tied to the table."""

    def __init__(self, words: int = 7, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(words, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.head = nn.Linear(width, words)

    def forward(self, step: int) -> torch.Tensor:
        x = self.table(torch.arange(5) % self.table.num_embeddings)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return (self.head(x) * torch.cos(torch.arange(self.head.out_features) + step)).square().mean()


def fresh(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * 0.3


def _with_rows(old: torch.Tensor, rows: Sequence[int]) -> nn.Parameter:
    """The old rows, and fresh ones where there is none."""
    new = fresh(len(rows), *old.shape[1:])
    for i, row in enumerate(rows):
        if row >= 0:
            new[i] = old.detach()[row]
    return nn.Parameter(new)


def _resize(net: Net, more: int) -> Moves:
    """Another vocabulary: new tensors, the first rows copied."""
    moves: dict[torch.Tensor, tuple[torch.Tensor, list[int] | None]] = {}
    tied = net.head.weight is net.table.weight
    for module, leaf in ((net.table, "weight"), (net.head, "weight"), (net.head, "bias")):
        old = getattr(module, leaf)
        if tied and module is net.head and leaf == "weight":
            net.head.weight = net.table.weight
            continue
        count = max(len(old) + more, 2)
        rows = [i if i < len(old) else -1 for i in range(count)]
        new = _with_rows(old, rows)
        setattr(module, leaf, new)
        moves[new] = (old, rows if count != len(old) else None)
    net.table.num_embeddings, net.head.out_features = len(net.table.weight), len(net.head.weight)
    return moves


def grow(net: Net) -> Moves:
    return _resize(net, 3)


def prune(net: Net) -> Moves:
    return _resize(net, -2)


def grow_in_place(net: Net) -> Moves:
    """As transformers' `resize_token_embeddings` does it."""
    moves: dict[torch.Tensor, tuple[torch.Tensor, list[int] | None]] = {}
    for p in {id(p): p for p in (net.table.weight, net.head.weight, net.head.bias)}.values():
        rows = [*range(len(p)), -1, -1]
        p.data = _with_rows(p, rows).data
        moves[p] = (p, rows)
    net.table.num_embeddings, net.head.out_features = len(net.table.weight), len(net.head.weight)
    return moves


def new_head(net: Net) -> Moves:
    """A head over other classes, nothing copied: the rows are others, the state is fresh."""
    net.head = nn.Linear(net.table.embedding_dim, net.head.out_features + 1)
    return {}


def swap(net: Net) -> Moves:
    """Another module of the same shape at the same place: state goes by name."""
    if parametrize.is_parametrized(net.blocks[0]):
        return {}
    old, new = net.blocks[0], nn.Linear(*net.blocks[0].weight.shape)
    net.blocks[0] = new
    return {new.weight: (old.weight, None), new.bias: (old.bias, None)}


def insert(net: Net) -> Moves:
    """A new block before the others, which move up."""
    width = net.table.embedding_dim
    net.blocks.insert(0, nn.Linear(width, width))
    return {}


def remove(net: Net) -> Moves:
    """The first block goes, the others move down."""
    if len(net.blocks) > 1:
        del net.blocks[0]
    return {}


def tie(net: Net) -> Moves:
    if net.head.weight.shape == net.table.weight.shape:
        net.head.weight = net.table.weight
    return {}


def untie(net: Net) -> Moves:
    if net.head.weight is not net.table.weight:
        return {}
    net.head.weight = nn.Parameter(net.table.weight.detach().clone())
    return {net.head.weight: (net.table.weight, None)}


def parametrized(net: Net) -> Moves:
    """One original: torch keeps the tensor."""
    if not parametrize.is_parametrized(net.blocks[-1]):
        parametrize.register_parametrization(net.blocks[-1], "weight", Symmetric())
    return {}


def normed(net: Net) -> Moves:
    """Two originals, which are others than the weight."""
    if not parametrize.is_parametrized(net.blocks[-1]):
        parametrizations.weight_norm(net.blocks[-1])
    return {}


def plain(net: Net) -> Moves:
    for block in net.blocks:
        if parametrize.is_parametrized(block):
            parametrize.remove_parametrizations(block, "weight")
    return {}


def adapter(net: Net) -> Moves:
    width = net.table.embedding_dim
    net.blocks.append(nn.Linear(width, width))
    return {}


EDITS: Mapping[str, Callable[[Net], Moves]] = {
    each.__name__: each
    for each in (
        grow,
        prune,
        grow_in_place,
        new_head,
        swap,
        insert,
        remove,
        tie,
        untie,
        parametrized,
        normed,
        plain,
        adapter,
    )
}


@dataclass(frozen=True)
class Recipe:
    """A plan, and what a person would write out: which algorithm a parameter gets."""

    plan: Plan
    kinds: Mapping[str, Callable[[Any], torch.optim.Optimizer]]
    kind_of: Callable[[str, torch.Tensor], str]


def _adamw(params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1, foreach=False)


def _muon(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Muon(params, lr=0.02, momentum=0.9, weight_decay=0.01)


def _sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.1, foreach=False)


def _adafactor(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(params, lr=1e-2, weight_decay=0.0)


ADAMW = Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.1, foreach=False)
MUON = Rule(name("blocks.*") & ndim(2), optimizer="Muon", lr=0.02, momentum=0.9, weight_decay=0.01, optional=True)
SGD = Rule("*", optimizer="SGD", lr=0.05, momentum=0.9, weight_decay=0.1, foreach=False)

RECIPES: Mapping[str, Recipe] = {
    "adamw": Recipe(Plan([ADAMW]), {"": _adamw}, lambda name, p: ""),
    "sgd": Recipe(Plan([SGD]), {"": _sgd}, lambda name, p: ""),
    "adafactor": Recipe(
        Plan([Rule("*", optimizer="Adafactor", lr=1e-2, weight_decay=0.0)]), {"": _adafactor}, lambda name, p: ""
    ),
    "muon and adamw": Recipe(
        Plan([ADAMW, MUON]),
        {"muon": _muon, "": _adamw},
        lambda name, p: "muon" if name.startswith("blocks") and p.ndim == 2 else "",
    ),
}


@dataclass
class ByHand:
    """Plain torch optimizers over a model, built again after every edit, the state moved by hand."""

    net: Net
    recipe: Recipe
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.build({})

    def state(self) -> dict[torch.Tensor, dict[str, Any]]:
        return {p: own for optimizer in self.optimizers.values() for p, own in optimizer.state.items()}

    def build(self, moves: Moves) -> None:
        """New optimizers over what the model has now."""
        old = self.state()
        kinds = {p: kind for kind, optimizer in self.optimizers.items() for p in optimizer.param_groups[0]["params"]}
        members: dict[str, list[torch.Tensor]] = {}
        for own_name, p in self.net.named_parameters():
            members.setdefault(self.recipe.kind_of(own_name, p), []).append(p)
        self.optimizers = {kind: self.recipe.kinds[kind](params) for kind, params in members.items()}
        for kind, params in members.items():
            for p in params:
                source, rows = moves.get(p, (p, None))
                if source in old and kinds[source] == kind:
                    moved = _moved(old[source], p, rows)
                    if moved is not None:
                        self.optimizers[kind].state[p] = moved

    def step(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()


def _moved(state: Mapping[str, Any], p: torch.Tensor, rows: list[int] | None) -> dict[str, Any] | None:
    """A copy of a state for `p`; with `rows`, every moment cut and filled row by row, unless it is not made of rows."""
    moved = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or value.ndim == 0 or rows is None:
            moved[key] = value.clone() if isinstance(value, torch.Tensor) else value
        elif value.shape[1:] != p.shape[1:] or value.ndim != p.ndim or "row" in key or "col" in key:
            return None
        else:
            zero = torch.zeros_like(value[0])
            moved[key] = torch.stack([value[row].clone() if row >= 0 else zero for row in rows])
    return moved
