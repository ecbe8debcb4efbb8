"""Gradient accumulation: one step per accumulation is the step of the joint batch, and schedules count updates."""

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm
from groupwise.schedules import cosine
from tests.optim.models import Net, batches, weights

PLAN = Plan(
    [
        Rule("*", optimizer="AdamW", lr=cosine(1e-2, warmup="25%"), weight_decay=0.1, clip=clip_norm(0.3)),
        Rule(
            "backbone.*.linear.weight",
            label="matrices",
            optimizer="Muon",
            lr=cosine(0.02),
            momentum=0.9,
            weight_decay=0.01,
        ),
        Rule("head", clip=clip_norm(0.1)),
        Rule("embed", optimizer="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
    ]
)
UPDATES = 8


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_batches_give_the_update_of_the_joint_batch(parts: int) -> None:
    joint, parted = Net(), Net()
    for net, cut in ((joint, 1), (parted, parts)):
        optimizer = GroupedOptimizer(net, PLAN)
        scheduler = PlanScheduler(optimizer, total_steps=UPDATES)
        for words, classes in batches(UPDATES):
            for some, their in zip(words.chunk(cut), classes.chunk(cut), strict=True):
                (nn.functional.cross_entropy(net(some), their) / cut).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        assert scheduler.last_epoch == UPDATES
    for name, p in weights(joint).items():
        torch.testing.assert_close(weights(parted)[name], p, rtol=0, atol=5e-4, msg=lambda m, n=name: f"{n}: {m}")
