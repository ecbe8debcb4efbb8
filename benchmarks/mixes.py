"""Other shapes, classes and mixes than those of `control_plane`, beside hand-tuned torch, in the same way.

Hand-tuned is the class (or two) with `fused=True` where it has that, one `LambdaLR` each, `clip_grad_norm_` with
foreach for each, on the parameters that train.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Scale, Table, Work, milliseconds, race
from benchmarks.models import copies, described, resnet18_size, vit_size
from benchmarks.updates import BOUND, RATE, by_hand, by_plan
from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise.schedules import cosine

ROWS = 2000
FUSED = ("Adam", "AdamW", "SGD")


@dataclass(frozen=True)
class Part:
    """Parameters that one class trains: `holds` of a name and a parameter. Without a class they are frozen."""

    holds: Callable[[str, nn.Parameter], bool]
    algorithm: str | None
    values: Mapping[str, Any] = field(default_factory=dict)
    clips: bool = True


def everything(algorithm: str, **values: Any) -> list[Part]:
    """One class for all."""
    return [Part(lambda name, p: True, algorithm, values)]


def half_frozen() -> list[Part]:
    """The first six blocks of twelve are frozen."""

    def rests(name: str, p: nn.Parameter) -> bool:
        return name.startswith("backbone.") and int(name.split(".")[1]) < 6

    return [Part(rests, None), Part(lambda name, p: not rests(name, p), "AdamW")]


def muon() -> list[Part]:
    """Muon for the matrices of the blocks."""

    def suits(name: str, p: nn.Parameter) -> bool:
        return name.startswith("backbone.") and p.ndim == 2

    muon = {"momentum": 0.95, "weight_decay": 0.1}
    return [Part(suits, "Muon", muon), Part(lambda name, p: not suits(name, p), "AdamW")]


def sparse(algorithm: str) -> list[Part]:
    """A class that takes the sparse gradient of a table, which torch cannot clip, and AdamW for what lies on it."""
    return [
        Part(lambda name, p: name.startswith("table"), algorithm, clips=False),
        Part(lambda name, p: not name.startswith("table"), "AdamW"),
    ]


def vectors(count: int, length: int) -> Callable[[], nn.Module]:
    """Many small tensors of one shape."""
    return lambda: nn.ParameterList(nn.Parameter(torch.randn(length)) for _ in range(count))


def convolutions() -> nn.Module:
    """Narrow convolutions with norms: 72 tensors, none of them large."""
    blocks = (
        [nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16, bias=False)]
        for _ in range(12)
    )
    return nn.Sequential(*(layer for block in blocks for layer in (*block, nn.BatchNorm2d(16))))


def with_table() -> nn.Module:
    """A table of 50,000 words of which a batch reads 2,000, and three layers on it."""
    layers = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10))
    return nn.ModuleDict({"table": nn.Embedding(50_000, 64, sparse=True), "layers": layers})


Mix = tuple[Callable[[], nn.Module], list[Part]]
MIXES: Mapping[str, Mix] = {
    "AdamW, width 192": (lambda: vit_size(192), everything("AdamW")),
    "AdamW, width 768": (lambda: vit_size(768), everything("AdamW")),
    "AdamW, amsgrad": (lambda: vit_size(64), everything("AdamW", amsgrad=True)),
    "AdamW, no decay, maximize": (lambda: vit_size(64), everything("AdamW", weight_decay=0.0, maximize=True)),
    "Adam, decay": (lambda: vit_size(64), everything("Adam", weight_decay=0.1)),
    "SGD": (lambda: vit_size(64), everything("SGD")),
    "SGD, momentum": (lambda: vit_size(64), everything("SGD", momentum=0.9)),
    "SGD, Nesterov, decay": (lambda: vit_size(64), everything("SGD", momentum=0.9, nesterov=True, weight_decay=0.01)),
    "AdamW, 500 vectors of 16": (vectors(500, 16), everything("AdamW")),
    "SGD, momentum, 500 vectors of 16": (vectors(500, 16), everything("SGD", momentum=0.9)),
    "AdamW, one vector of 1,000": (vectors(1, 1000), everything("AdamW")),
    "SGD, momentum, 4 vectors of 64": (vectors(4, 64), everything("SGD", momentum=0.9)),
    "AdamW, narrow convolutions": (convolutions, everything("AdamW")),
    "SGD, momentum, ResNet-18 size": (resnet18_size, everything("SGD", momentum=0.9)),
    "AdamW, half of it frozen": (lambda: vit_size(64), half_frozen()),
    "Muon and AdamW": (lambda: vit_size(64), muon()),
    "SparseAdam for a table, AdamW": (with_table, sparse("SparseAdam")),
    "SGD for a table, AdamW": (with_table, sparse("SGD")),
}


SLOW = ("AdamW, width 768", "Muon and AdamW")
"""Those of which a second holds but a few calls."""


def taken(model: nn.Module, part: Part) -> dict[str, nn.Parameter]:
    """By name, the parameters of a part."""
    return {name: p for name, p in model.named_parameters() if part.holds(name, p)}


def ours(model: nn.Module, parts: Sequence[Part], alone: bool) -> Work:
    """A plan with a rule for each part."""
    rules = []
    for part in parts:
        names = [*taken(model, part)]
        if part.algorithm is None:
            rules.append(Rule(names, trainable=False))
            continue
        clip = clip_norm(BOUND) if part.clips and not alone else None
        rate = RATE if alone else cosine(RATE)
        rules.append(Rule(names, optimizer=part.algorithm, lr=rate, clip=clip, **part.values))
    optimizer = GroupedOptimizer(model, Plan(rules))
    return by_plan(optimizer, alone)


def hand_tuned(model: nn.Module, parts: Sequence[Part], alone: bool) -> Work:
    """Torch's optimizers, fused where they can be, a scheduler for each, a call of clip_grad_norm_ for each."""
    optimizers, lists = [], []
    for part in parts:
        held = [*taken(model, part).values()]
        if part.algorithm is None:
            for p in held:
                p.requires_grad_(False)
            continue
        kernel = {"fused": True} if part.algorithm in FUSED and part.clips else {}
        optimizers.append(getattr(torch.optim, part.algorithm)(held, lr=RATE, **kernel, **part.values))
        lists += [held] if part.clips else []
    return by_hand(optimizers, lists, alone)


def gradients(model: nn.Module) -> Callable[[], None]:
    """What hands out the same gradients again, in new tensors, to what trains: sparse ones to a table."""
    generator = torch.Generator().manual_seed(0)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    held = [(p, torch.randn(p.shape, generator=generator)) for name, p in named if not name.startswith("table")]
    tables = [
        (p, torch.randint(len(p), (1, ROWS), generator=generator)) for name, p in named if name.startswith("table")
    ]

    def give() -> None:
        for p, gradient in held:
            p.grad = gradient.clone()
        for p, rows in tables:
            p.grad = torch.sparse_coo_tensor(rows, torch.ones(ROWS, p.shape[1]), p.shape, check_invariants=False)

    return give


def compared(mix: Mix, seconds: float) -> list[str]:
    """Sizes, and times and ratios of the whole and of the step alone."""
    make, parts = mix
    cells = [described(make())]
    for alone in (False, True):
        one, other = copies(make(), 2)
        for p in (*one.parameters(), *other.parameters()):
            p.grad = None
        works = {"hand-tuned": hand_tuned(one, parts, alone), "groupwise": ours(other, parts, alone)}
        before = {"hand-tuned": gradients(one), "groupwise": gradients(other)}
        gc.collect()
        results = race(works, "hand-tuned", seconds, before=before)
        found = results["groupwise"]
        cells += [milliseconds(results["hand-tuned"].seconds), f"{found.ratio:.2f} ± {found.spread:.2f}"]
    return cells


def table(scale: Scale) -> Table:
    """A row for each mix."""
    ratio = "groupwise / hand-tuned"
    columns = ["what", "parameters", "the whole, hand-tuned", ratio, "step alone, hand-tuned", ratio]
    chosen = [*MIXES.items()][-2:] if scale.quick else MIXES.items()
    rows = [[name, *compared(mix, scale.seconds(8.0 if name in SLOW else 1.0))] for name, mix in chosen]
    return Table("other shapes, classes and mixes", columns, rows)
