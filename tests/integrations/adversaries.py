"""Two networks of vectors that train against each other, and the plain loop of a round of theirs."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.schedules import linear
from tests.integrations.models import Batch

ADVERSARIES = Plan(
    [
        Rule("*", optimizer="Adam", lr=linear(1e-2, 0.0), betas=(0.5, 0.99), clip=clip_norm(1.0)),
        Rule("critic", optimizer="SGD", lr=scale(4.0), momentum=0.5, weight_decay=0.0),
        Rule("critic", lr=linear(1e-2, 0.0)),
    ]
)


class Adversaries(nn.ModuleDict):
    """A generator and a critic of vectors of size 8."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 1)})

    def losses(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The critic's loss and the generator's, on the same noise."""
        real = nn.functional.one_hot(words[:, 0] % 8, 8).float()
        fake = self["generator"](words.repeat(1, 2)[:, :4] / 20)
        critic = torch.relu(1 - self["critic"](real)).mean() + torch.relu(1 + self["critic"](fake)).mean()
        return critic, -self["critic"](fake).mean()


def adversarial_round(nets: Adversaries, words: torch.Tensor, optimizer: Any, backward: Any) -> None:
    """Two critic updates and one of the generator."""
    for _ in range(2):
        with optimizer.only("critic") as critics:
            backward(nets.losses(words)[0])
            critics.step()
            critics.zero_grad()
    with optimizer.only("generator") as generators:
        backward(nets.losses(words)[1])
        generators.step()
        generators.zero_grad()


def plain_rounds(batches: Iterable[Batch]) -> Adversaries:
    """The reference: one round and one tick per batch."""
    nets, listed = Adversaries(), list(batches)
    optimizer = GroupedOptimizer(dict(nets), ADVERSARIES)
    scheduler = PlanScheduler(optimizer, total_steps=len(listed))
    for batch in listed:
        adversarial_round(nets, batch["words"], optimizer, lambda loss: loss.backward())
        scheduler.step()
    return nets
