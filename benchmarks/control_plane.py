"""All that is not the model:  python -m benchmarks --only control-plane

Clip per group, step, schedule and zero_grad, and the step alone, under one group, a group for each layer and kind of
tensor (29 in a ViT of twelve blocks), and a group for each tensor. Beside it

- *hand-tuned*: what one writes who reads torch's documentation: a fused optimizer with a group for each, one scheduler,
  `clip_grad_norm_` with foreach for each group;
- *lean*: the floor, a loop for one run alone that keeps its lists of tensors and one tensor of step counts, takes one
  norm pass and calls torch's fused kernels. It checks nothing and can save nothing.

Clipping writes into the gradients, so each call gets fresh ones beforehand, off the clock, and the table says how many
scopes clip. Times are medians over rounds in which contestants take turns; the spread is half the distance between the
quartiles of a ratio.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks import mixes
from benchmarks.measure import Scale, Table, Work, milliseconds, race
from benchmarks.models import copies, described, fresh_gradients, vit_size
from benchmarks.updates import BOUND, RATE, by_hand, by_plan, course
from groupwise import GroupedOptimizer, Plan, Rule, clip_norm
from groupwise import scale as times
from groupwise.schedules import cosine

DECAY, MOMENTUM = 0.05, 0.9


@dataclass(frozen=True)
class Part:
    """One group: the names of its parameters, its algorithm and what it is trained with."""

    names: tuple[str, ...]
    algorithm: str
    rate: float
    decay: float


Sliced = Callable[[nn.Module], list[Part]]


def one_group(model: nn.Module) -> list[Part]:
    """AdamW on everything."""
    return [Part(tuple(name for name, _ in model.named_parameters()), "AdamW", RATE, DECAY)]


def by_layer(model: nn.Module) -> list[Part]:
    """A rate for each block, and no decay on norms and biases."""
    names: dict[tuple[int, bool], list[str]] = {}
    for name, p in model.named_parameters():
        depth = int(name.split(".")[1]) + 1 if name.startswith("backbone.") else 0 if name.startswith("stem") else 13
        names.setdefault((depth, p.ndim > 1), []).append(name)
    return [
        Part(tuple(held), "AdamW", RATE * 0.8 ** (13 - depth), DECAY * decayed)
        for (depth, decayed), held in names.items()
    ]


def by_tensor(model: nn.Module) -> list[Part]:
    """A group for each tensor."""
    return [Part((name,), "AdamW", RATE * 0.99**i, DECAY) for i, name in enumerate(dict(model.named_parameters()))]


def two_algorithms(model: nn.Module) -> list[Part]:
    """As by layer, with SGD for the matrices of the blocks."""
    return [
        Part(part.names, "SGD", part.rate, part.decay) if part.decay and "backbone" in part.names[0] else part
        for part in by_layer(model)
    ]


SLICES: Mapping[str, Sliced] = {
    "one group": one_group,
    "by layer": by_layer,
    "by tensor": by_tensor,
    "AdamW and SGD, by layer": two_algorithms,
}


def ours(model: nn.Module, parts: Sequence[Part], alone: bool) -> Work:
    """A plan with a rule for each group."""
    rules = [Rule("*", lr=RATE if alone else cosine(RATE))]
    for part in parts:
        rules.append(
            Rule(
                list(part.names),
                optimizer=part.algorithm,
                lr=times(part.rate / RATE),
                weight_decay=part.decay,
                clip=None if alone else clip_norm(BOUND),
                **({"momentum": MOMENTUM} if part.algorithm == "SGD" else {}),
            )
        )
    optimizer = GroupedOptimizer(model, Plan(rules))
    if len(optimizer.param_groups) != len(parts):
        raise ValueError(f"{len(optimizer.param_groups)} groups in place of {len(parts)}")
    return by_plan(optimizer, alone)


def tensors_of(model: nn.Module, part: Part) -> list[torch.Tensor]:
    """The parameters of a group."""
    named = dict(model.named_parameters())
    return [named[name] for name in part.names]


def hand_tuned(model: nn.Module, parts: Sequence[Part], alone: bool) -> Work:
    """Fused torch optimizers, a scheduler for each of them, a call of clip_grad_norm_ for each group."""
    optimizers: list[torch.optim.Optimizer] = []
    for algorithm, given in (("AdamW", {}), ("SGD", {"momentum": MOMENTUM})):
        groups = [
            {"params": tensors_of(model, part), "lr": part.rate, "weight_decay": part.decay}
            for part in parts
            if part.algorithm == algorithm
        ]
        if groups:
            optimizers.append(getattr(torch.optim, algorithm)(groups, fused=True, **given))
    return by_hand(optimizers, [tensors_of(model, part) for part in parts], alone)


class Lean:
    """The floor: lists of tensors and one tensor of step counts, kept; one norm pass; torch's kernels."""

    def __init__(self, model: nn.Module, parts: Sequence[Part], alone: bool) -> None:
        self.parts, self.alone, self.at = parts, alone, 0
        self.lists = [tensors_of(model, part) for part in parts]
        self.all = [p for tensors in self.lists for p in tensors]
        self.sizes = [len(tensors) for tensors in self.lists]
        self.counts = torch.zeros(len(self.all))
        views = iter(self.counts.unbind())
        self.steps = [[next(views) for _ in tensors] for tensors in self.lists]
        self.first = [[torch.zeros_like(p) for p in tensors] for tensors in self.lists]
        self.second = [[torch.zeros_like(p) for p in tensors] for tensors in self.lists]
        self.rates = [part.rate for part in parts]

    @torch.no_grad()
    def __call__(self) -> None:
        gradients = [[p.grad for p in tensors] for tensors in self.lists]
        if not self.alone:
            self._clip(gradients)
        self.counts += 1
        for i, part in enumerate(self.parts):
            if part.algorithm == "SGD":
                torch._fused_sgd_(
                    self.lists[i], gradients[i], self.first[i], weight_decay=part.decay, momentum=MOMENTUM,
                    lr=self.rates[i], dampening=0.0, nesterov=False, maximize=False, is_first_step=self.at == 0,
                )  # fmt: skip
                continue
            torch._fused_adamw_(
                self.lists[i], gradients[i], self.first[i], self.second[i], [], self.steps[i], lr=self.rates[i],
                beta1=0.9, beta2=0.999, weight_decay=part.decay, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip
        self.at += 1
        if not self.alone:
            share = course(self.at)
            self.rates = [part.rate * share for part in self.parts]
            for p in self.all:
                p.grad = None

    def _clip(self, gradients: list[list[torch.Tensor]]) -> None:
        norms = torch.stack(torch._foreach_norm([g for own in gradients for g in own]))
        joint = norms.square().split(self.sizes)
        totals = torch.stack([own.sum() for own in joint]).sqrt() if len(joint) < len(self.all) else norms
        factors = torch.clamp(BOUND / (totals + 1e-6), max=1.0)
        for own, factor in zip(gradients, factors.tolist(), strict=True):
            if factor < 1:
                torch._foreach_mul_(own, factor)


WHO = {"hand-tuned": hand_tuned, "lean": Lean, "groupwise": ours}


def compared(model: nn.Module, sliced: Sliced, alone: bool, seconds: float) -> tuple[list[str], int]:
    """One row of a table, and how many scopes clipped in the last call."""
    models = copies(model, len(WHO))
    works = {who: build(m, sliced(m), alone) for (who, build), m in zip(WHO.items(), models, strict=True)}
    before = {who: fresh_gradients(m) for who, m in zip(WHO, models, strict=True)}
    clipping = 0
    gc.collect()
    results = race(works, "hand-tuned", seconds, before=before)
    if not alone:
        before["groupwise"]()
        measured = works["groupwise"]().measured  # type: ignore[attr-defined]
        clipping = sum(float(found.factor) < 1 for found in measured.values())
    times = [milliseconds(results[who].seconds) for who in WHO]
    ratios = [f"{results[who].ratio:.2f} ± {results[who].spread:.2f}" for who in ("lean", "groupwise")]
    return [str(len(sliced(model))), *times, *ratios], clipping


def tables(scale: Scale) -> Iterator[Table]:
    """A table for the whole and one for the step alone, at every width; one of other shapes, classes and mixes."""
    head = ["groups", "number", *WHO, "lean / hand-tuned", "groupwise / hand-tuned"]
    for width in (64,) if scale.quick else (64, 384):
        for title, alone in (("clip, step, schedule, zero_grad", False), ("step alone", True)):
            rows = []
            for name, sliced in SLICES.items():
                row, clipping = compared(vit_size(width), sliced, alone, scale.seconds(2.5))
                rows.append([name, *row] + ([] if alone else [str(clipping)]))
            size = described(vit_size(width))
            yield Table(f"{title}; width {width}, {size}", head + ([] if alone else ["clipping"]), rows)
    yield mixes.table(scale)
