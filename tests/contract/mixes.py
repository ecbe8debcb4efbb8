"""Mixed plans, each beside the plain torch optimizers on the same slices: the reference that owes nothing to groupwise.

A plan's step has to equal theirs; everything else in this folder is about who calls that step, and how.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}  # relative: our kernels may be the fused ones


class Net(nn.Module):
    """A word table, a dense layer, a norm and a head: what plans tell apart."""

    def __init__(self, sparse: bool = False, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(9, 4, sparse=sparse)
        self.hidden = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)
        self.to(dtype)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.norm(torch.tanh(self.hidden(self.embed(words).mean(1)))))
        return out


@dataclass(frozen=True)
class Mix:
    """A plan, and per algorithm the names of its slice and the arguments that a person would write out."""

    plan: Plan
    slices: Sequence[tuple[type[torch.optim.Optimizer], Sequence[str], Mapping[str, Any]]]
    sparse: bool = False

    def net(self, dtype: torch.dtype = torch.float32) -> Net:
        """The model, the same at every call."""
        return Net(self.sparse, dtype)

    def optimizer(self, net: nn.Module) -> GroupedOptimizer:
        """Ours."""
        return GroupedOptimizer(net, self.plan)

    def separate(self, net: nn.Module) -> list[torch.optim.Optimizer]:
        """The reference: one plain torch optimizer per slice."""
        named = dict(net.named_parameters())
        return [cls([named[name] for name in names], **arguments) for cls, names, arguments in self.slices]


EMBED, HIDDEN, HEAD = ["embed.weight"], ["hidden.weight", "hidden.bias"], ["head.weight", "head.bias"]
NORM = ["norm.weight", "norm.bias"]
BASE = Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.1)
MOMENTUM = Rule("hidden.*", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0)
ADAMW = (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1})
SGD = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0})

MIX = Mix(Plan([BASE, MOMENTUM]), [(ADAMW[0], EMBED + NORM + HEAD, ADAMW[1]), (SGD[0], HIDDEN, SGD[1])])
"""SGD and AdamW: the mix of most tests."""

MUON = Mix(
    Plan([BASE, Rule("hidden.weight", optimizer="Muon", lr=0.02, momentum=0.9, weight_decay=0.01)]),
    [
        (ADAMW[0], EMBED + NORM + HEAD + ["hidden.bias"], ADAMW[1] | {"fused": True}),  # see below
        (torch.optim.Muon, ["hidden.weight"], {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    ],
)
"""Muon iterates in bfloat16, which turns the last digit of another kernel's gradient into a part in ten thousand: the
reference beside it runs the kernel that ours does."""

ADAGRAD = Mix(
    Plan([BASE, MOMENTUM, Rule("embed.*", optimizer="Adagrad", lr=0.05, weight_decay=0.0)]),
    [
        (ADAMW[0], NORM + HEAD, ADAMW[1]),
        (SGD[0], HIDDEN, SGD[1]),
        (torch.optim.Adagrad, EMBED, {"lr": 0.05, "weight_decay": 0.0}),
    ],
)
SPARSE = Mix(
    Plan([BASE, MOMENTUM, Rule("embed.*", optimizer="SparseAdam", lr=0.05, weight_decay=0.0)]),
    [
        (ADAMW[0], NORM + HEAD, ADAMW[1]),
        (SGD[0], HIDDEN, SGD[1]),
        (torch.optim.SparseAdam, EMBED, {"lr": 0.05}),
    ],
    sparse=True,
)
MIXES: Mapping[str, Mix] = {"sgd+adamw": MIX, "muon": MUON, "adagrad": ADAGRAD, "sparse adam": SPARSE}


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words of shape [12, 3], classes of shape [12]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 9, (12, 3), generator=generator), torch.randint(0, 3, (12,), generator=generator)


def backward(net: nn.Module, seed: int) -> torch.Tensor:
    """Fresh gradients; the loss."""
    words, classes = batch(seed)
    net.zero_grad()
    loss = nn.functional.cross_entropy(net(words), classes)
    loss.backward()
    return loss


def train(net: nn.Module, seeds: Iterable[int], *calls: Callable[[], object]) -> None:
    """For each seed a backward, then every one of `calls`."""
    for seed in seeds:
        backward(net, seed)
        for call in calls:
            call()


def steps(optimizers: Iterable[torch.optim.Optimizer]) -> Callable[[], None]:
    """One call that steps them all."""
    listed = list(optimizers)

    def step() -> None:
        for optimizer in listed:
            optimizer.step()

    return step


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter, as it is now."""
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    """Equal parameters, to the rounding of one kernel against another."""
    expected = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        tolerance = TOLERANCE[p.dtype] * max([1.0, *expected[name].detach().abs().flatten().tolist()])
        torch.testing.assert_close(p, expected[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def assert_unmoved(net: nn.Module, before: Mapping[str, torch.Tensor]) -> None:
    """Every parameter holds exactly what it held."""
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name]), name
