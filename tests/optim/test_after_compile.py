"""The first use of `torch.compile` in a process wraps the steps of some of torch's classes; plans go on as before."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, warnings
warnings.simplefilter("error")
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
import groupwise
from groupwise import GroupedOptimizer, Plan, Rule

def compile_something():
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))

def train(optimizers, embedding, head):
    for _ in range(3):
        head(embedding(torch.tensor([0, 2]))).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

def model():
    torch.manual_seed(0)
    return nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2)

order, dense = sys.argv[1:]
if order == "before the first optimizer":
    compile_something()
ours = nn.ModuleList(model())
grouped = lambda: GroupedOptimizer(ours, Plan([
    Rule("0.*", label="table", optimizer="SparseAdam", lr=0.1), Rule("1.*", label="head", optimizer=dense, lr=0.1)]))
first = grouped() if order == "before the first step" else None
if order != "before the first optimizer":
    table = torch.optim.SparseAdam([nn.Parameter(torch.ones(1))])
    compile_something()
optimizer = first or grouped()
fired = []
register_optimizer_step_post_hook(lambda each, *_: fired.append(type(each).__name__))
train([optimizer], *ours)
assert fired == ["GroupedOptimizer"] * 3, fired
embedding, head = model()
alone = [torch.optim.SparseAdam(embedding.parameters(), lr=0.1), getattr(torch.optim, dense)(head.parameters(), lr=0.1)]
train(alone, embedding, head)
assert torch.equal(embedding.weight, ours[0].weight)
assert torch.equal(head.weight, ours[1].weight)
print("equal")
"""


@pytest.mark.parametrize("dense", ["AdamW", "RAdam"])
@pytest.mark.parametrize("order", ["before the first optimizer", "after the first optimizer", "before the first step"])
def test_steps_are_those_of_separate_optimizers_and_hooks_fire_once(order: str, dense: str) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, order, dense], capture_output=True, text=True, check=False)
    assert ended.stdout == "equal\n", ended.stderr
