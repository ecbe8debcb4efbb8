"""Saving and loading an optimizer:  python -m benchmarks --only saving

`state_dict` and `load_state_dict` of many small tensors under AdamW, each in a layer of its own, beside those of
`torch.optim.AdamW` with the same groups: one, or one for every twelve layers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.measure import Scale, Table, milliseconds, race
from groupwise import GroupedOptimizer, Plan, Rule, exact

SIZES = (1000, 10_000)
LAYERS = 12  # in a block


def optimizers(count: int, by_block: bool) -> tuple[nn.Module, GroupedOptimizer, torch.optim.AdamW]:
    """A model (a save looks whether it has changed), ours and torch's, on the same tensors, after a step."""
    blocks = [nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(LAYERS))) for _ in range(count // LAYERS)]
    model = nn.Sequential(*blocks, *(nn.Linear(2, 2, bias=False) for _ in range(count % LAYERS)))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    rules = [Rule(f"{i}.*", lr=exact(1e-3 + 1e-6 * i)) for i in range(len(blocks) if by_block else 0)]
    ours = GroupedOptimizer(model, Plan([Rule("*", optimizer="AdamW", lr=1e-3), *rules]))
    theirs = torch.optim.AdamW([{"params": group["params"], "lr": group["lr"]} for group in ours.param_groups])
    ours.step()
    theirs.step()
    return model, ours, theirs


def rows(count: int, by_block: bool, scale: Scale) -> Iterator[list[str]]:
    """Of the two calls."""
    model, ours, theirs = optimizers(count, by_block)
    saved, other = ours.state_dict(), theirs.state_dict()
    calls = {
        "state_dict": (ours.state_dict, theirs.state_dict),
        "load_state_dict": (lambda: ours.load_state_dict(saved), lambda: theirs.load_state_dict(other)),
    }
    for name, (own, torchs) in calls.items():
        times = race({"groupwise": own, "torch": torchs}, "torch", scale.seconds(2.0))
        found, ratio = times["groupwise"], f"{times['groupwise'].ratio:.2f} ± {times['groupwise'].spread:.2f}"
        groups = str(len(ours.param_groups))
        yield [
            name,
            f"{len([*model.parameters()]):,}",
            groups,
            milliseconds(found.seconds),
            milliseconds(times["torch"].seconds),
            ratio,
        ]


def tables(scale: Scale) -> Iterator[Table]:
    """One table."""
    sizes = (2 * LAYERS,) if scale.quick else SIZES
    found = [row for count in sizes for by_block in (False, True) for row in rows(count, by_block, scale)]
    columns = ["call", "tensors", "groups", "groupwise", "torch", "ratio"]
    yield Table("Saving and loading", columns, found)
