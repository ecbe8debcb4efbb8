"""One small model, one mixed plan, and the plain loop that every trainer is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.schedules import cosine, linear

Batch = Mapping[str, torch.Tensor]

RULES = [
    Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="10%"), weight_decay=linear(0.0, 0.1), clip=clip_norm(0.5)),
    Rule("blocks.*.weight", label="matrices", optimizer="Muon", lr=cosine(2e-2), momentum=0.9, weight_decay=0.01),
    Rule("embed", optimizer="SGD", lr=linear(0.2, 0.0), momentum=0.9, weight_decay=0.0),
    Rule("head", lr=scale(2.0), clip=clip_norm(0.2)),
]
PLAN = Plan(RULES)
"""AdamW, Muon and SGD, four schedules, two clip scopes."""

CONSTANT = Plan(
    [
        Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.05),
        Rule("blocks.*.weight", label="matrices", optimizer="Muon", lr=2e-2, momentum=0.9, weight_decay=0.01),
        Rule("embed", optimizer="SGD", lr=0.2, momentum=0.9, weight_decay=0.0),
    ]
)
"""The same algorithms at rates that a foreign schedule multiplies."""


class Net(nn.Module):
    """Words of shape [n, 3] and, if given, labels of shape [n] to a loss and logits, as Hugging Face's models do."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(20, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, words: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        x = self.embed(words).mean(1)
        for block in self.blocks:
            x = torch.relu(block(x)) + x
        logits = self.head(self.norm(x))
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}


class Words(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """`count` samples, the same ones for the same seed."""

    def __init__(self, count: int, seed: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(0, 20, (count, 3), generator=generator)
        self.labels = self.words.sum(1) % 4

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"words": self.words[i], "labels": self.labels[i]}


def collated(samples: Sequence[Batch]) -> dict[str, torch.Tensor]:
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


class Recorder:
    """A collator that remembers the batches it made, in order."""

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []

    def __call__(self, samples: Sequence[Batch]) -> dict[str, torch.Tensor]:
        self.batches.append(collated(samples))
        return self.batches[-1]


def loader(count: int, size: int = 8) -> "torch.utils.data.DataLoader[Any]":
    return torch.utils.data.DataLoader(Words(count), batch_size=size, collate_fn=collated)


def plain(batches: Iterable[Batch], plan: Plan = PLAN, total_steps: int | None = None, accumulate: int = 1) -> Net:
    """Our own loop: the reference. One update per `accumulate` batches."""
    net, listed = Net(), list(batches)
    optimizer = GroupedOptimizer(net, plan)
    updates = len(listed) // accumulate
    scheduler = PlanScheduler(optimizer, total_steps=total_steps or updates)
    for i, batch in enumerate(listed):
        (net(**batch)["loss"] / accumulate).backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    return net


def difference(a: nn.Module, b: nn.Module) -> float:
    """The largest difference between two models' parameters."""
    other = dict(b.named_parameters())
    return max((p - other[name]).abs().max().item() for name, p in a.named_parameters())


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    """Bit for bit."""
    other = dict(b.named_parameters())
    different = [name for name, p in a.named_parameters() if not torch.equal(p, other[name])]
    assert not different, f"{different}, by up to {difference(a, b)}"


def assert_same_state(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    """Equal groups, and equal state, bit for bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    torch.testing.assert_close(ours["state"], theirs["state"], rtol=0, atol=0)
