"""Rates that follow measurements:  python -m benchmarks.measured

What a step takes with each factor on every parameter, beside the same plan without; the floor is a copy of the weights,
two norms of each tensor and one more read and write of it, as calls of torch over lists. And the same as a share of a
whole training step (forward, backward, step) of a ViT of width 192 on 32 images, where an optimizer's step is little.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.measure import Work, milliseconds, race, say, table, threads_from_arguments
from benchmarks.models import SIZES, copies, described
from groupwise import GroupedOptimizer, Plan, Rule, gradient_share, trust_ratio, update_ratio
from groupwise.plan import Factor

FACTORS: dict[str, tuple[str, Factor]] = {
    "trust_ratio()": ("AdamW", trust_ratio()),
    "trust_ratio(per='group')": ("AdamW", trust_ratio(per="group")),
    "trust_ratio(of='gradient')": ("SGD", trust_ratio(1e-3, of="gradient")),
    "update_ratio()": ("AdamW", update_ratio()),
    "gradient_share()": ("AdamW", gradient_share()),
}


def stepping(model: nn.Module, algorithm: str, factor: Factor | None) -> Work:
    """The step of a plan."""
    own = {"momentum": 0.9} if algorithm == "SGD" else {}
    rules = [Rule("*", optimizer=algorithm, lr=1e-4, weight_decay=0.05, **own)]
    step: Work = GroupedOptimizer(model, Plan(rules + ([Rule("*", lr=factor)] if factor is not None else []))).step
    return step


def moving(model: nn.Module) -> Work:
    """What cannot be avoided once the class's step is not touched."""
    weights = [p.data for p in model.parameters()]

    def work() -> None:
        before = [t.clone() for t in weights]
        torch._foreach_norm(before)
        torch._foreach_sub_(before, weights)
        torch._foreach_norm(before)
        torch._foreach_add_(weights, before, alpha=0.0)

    return work


def compare(title: str, build: Callable[[], nn.Module]) -> None:
    """Race the factors on one model's parameters."""
    rows = []
    for name, (algorithm, factor) in FACTORS.items():
        plain, ours, floor = copies(build(), 3)
        works = {
            "plain": stepping(plain, algorithm, None),
            "ours": stepping(ours, algorithm, factor),
            "floor": moving(floor),
        }
        found = race(works, "plain", 2.0)
        added = found["ours"].seconds - found["plain"].seconds
        rows.append(
            [name, *(milliseconds(found[who].seconds) for who in works), f"{added / found['floor'].seconds:.2f}"]
        )
    table(title, ["factor", "the class's step", "with the factor", "floor", "added / floor"], rows)


class Vit(nn.Module):
    """A ViT that is really trained: 4 blocks of width 192 on 64 patches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 192, 4, stride=4)
        layer = nn.TransformerEncoderLayer(192, 3, 768, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(192, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.stem(images).flatten(2).transpose(1, 2)).mean(1))
        return out


def training(model: nn.Module, step: Work) -> Work:
    """A whole training step."""
    images, classes = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))

    def work() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(images), classes).backward()
        step()

    return work


def whole() -> None:
    """Race training steps, in which an optimizer's step is a small part."""
    rows, model = [], Vit()
    for name, (algorithm, factor) in FACTORS.items():
        plain, ours = copy.deepcopy(model), copy.deepcopy(model)
        works = {
            "plain": training(plain, stepping(plain, algorithm, None)),
            "ours": training(ours, stepping(ours, algorithm, factor)),
        }
        found = race(works, "plain", 12.0)
        rows.append([name, *(milliseconds(found[who].seconds) for who in works), f"{found['ours'].ratio - 1:+.1%}"])
    table(f"whole training steps, {described(model)}", ["factor", "plain", "with the factor", "added"], rows)


def main() -> None:
    """A table for each size, and one of whole training steps."""
    threads = threads_from_arguments(__doc__)
    say(f"torch {torch.__version__}, {threads} thread(s)")
    for name in ("small CNN", "ViT-S size"):
        compare(f"{name}: {described(SIZES[name]())}", SIZES[name])
    whole()


if __name__ == "__main__":
    main()
