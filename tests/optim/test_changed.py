"""What changes its shape, strides or type under the optimizer is stepped as plain torch steps it, or refused as there.

A kernel that leaves its memory ends the process, so the changes are made in another one (`tests.optim.changed`).
"""

import json
import subprocess
import sys

import pytest

from tests.house.tree import ROOT
from tests.optim.changed import CHANGES, CLASSES

RESIZED = """
import sys, warnings
from tests.vision import import_torchvision

warnings.simplefilter("ignore")
import_torchvision()
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from groupwise import GroupedOptimizer, GroupwiseError, Plan, Rule

torch.set_num_threads(1)
words = torch.arange(8).reshape(2, 4)
sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
plan = Plan([Rule("*", optimizer="AdamW", lr=1e-2)])


def outcome(ours, tied, rows, cleared):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=1, tie_word_embeddings=tied, **sizes))
    optimizer = GroupedOptimizer(model, plan) if ours else torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
        if step == 0:
            model.resize_token_embeddings(rows)
            if cleared:
                optimizer.state.clear()
    return "stepped to " + format(sum(float(p.double().square().sum()) for p in model.parameters()), ".6g")


for case in ((True, 3000, False), (False, 3000, False), (True, 40, False), (True, 3000, True)):
    for ours in (False, True):
        try:
            found = outcome(ours, *case)
        except (RuntimeError, GroupwiseError):
            found = "refused"
        print(found, flush=True)
"""


def child(*command: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, *command]
    return subprocess.run(done, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


def test_a_vocabulary_resized_by_transformers_after_a_step_is_stepped_or_refused_as_by_plain_torch() -> None:
    done = child("-c", RESIZED)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-500:])
    theirs, ours = done.stdout.splitlines()[::2], done.stdout.splitlines()[1::2]
    assert ours == theirs
    assert ours[:3] == ["refused"] * 3
    assert ours[3].startswith("stepped to")


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], str]:
    """What each change came to under each class; where the process ended, the last one says so."""
    lines = child("-m", "tests.optim.changed").stdout.splitlines()
    return {(name, what): result for name, what, result in map(json.loads, lines)}


@pytest.mark.parametrize("name", CLASSES)
def test_every_change_is_stepped_bit_for_bit_as_by_plain_torch_or_refused(
    name: str, outcomes: dict[tuple[str, str], str]
) -> None:
    found = {what: outcomes.get((name, what), "not reached") for what in CHANGES}
    assert {what: result for what, result in found.items() if result != "the same"} == {}
