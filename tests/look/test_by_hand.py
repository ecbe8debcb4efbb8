"""Networks written by hand, with the roles and the level of every parameter, whatever its name."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from groupwise.look import parameters_of
from tests.look import by_hand
from tests.look.networks import noise, renamed
from tests.look.tables import differences

IMAGE = torch.rand(1, 3, 16, 16)
EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def stage(name: str, level: str, at: tuple[int, ...] = (0, 3)) -> str:
    """The lines of a stage made of convolutions and norms."""
    conv = [f"{name}.{i}.weight {level} conv weight\n{name}.{i}.bias {level} bias conv" for i in at]
    norm = [f"{name}.{i + 1}.weight {level} norm weight\n{name}.{i + 1}.bias {level} bias norm" for i in at]
    return "\n".join(conv + norm) + "\n"


TABLES: dict[str, tuple[nn.Module, Any, str]] = {
    "U-Net of attributes": (
        by_hand.UNet(), IMAGE,
        stage("entry", "1") + stage("down1", "2") + stage("down2", "3") + stage("up1", "4") + stage("up2", "5")
        + "exit.weight 6 conv head weight\nexit.bias 6 bias conv head",
    ),
    "U-Net of lists": (
        by_hand.ListedUNet(), IMAGE,
        stage("entry", "0") + stage("downs.#", "n+1") + stage("middle", "3") + stage("ups.#", "n+4") + """
lifts.#.weight n+3 conv weight
lifts.#.bias   n+3 bias conv
exit.weight    6   conv head weight
exit.bias      6   bias conv head
""",
    ),
    "a recurrent language model": (
        by_hand.LanguageModel(), by_hand.IDS,
        """
words.weight  1 embedding weight
body.weight*  2 matrix weight
body.bias*    2 bias
out.weight    3 head weight
out.bias      3 bias head
""",
    ),
    "two recurrent networks": (
        by_hand.Translator(), (by_hand.IDS, by_hand.IDS),
        """
source.weight    1 embedding weight
target.weight    1 embedding weight
encoder.weight*  2 matrix weight
encoder.bias*    2 bias
decoder.weight*  3 matrix weight
decoder.bias*    3 bias
score.weight     4 matrix weight
out.weight       5 head weight
out.bias         5 bias head
""",
    ),
    "a radiance field": (
        by_hand.Field(), (torch.rand(2, 6), torch.rand(2, 3)),
        """
layers.#.weight  n+1 matrix weight
layers.#.bias    n+1 bias
density.weight   4 head weight
density.bias     4 bias head
colour.weight    4 head weight
colour.bias      4 bias head
*.weight         4 matrix weight
*.bias           4 bias
""",
    ),
    "a recommender": (
        by_hand.Recommender(), (torch.rand(2, 5), by_hand.IDS),
        """
tables.#.weight  0 embedding weight
bottom.0.weight  1 matrix weight
bottom.0.bias    1 bias
bottom.2.weight  2 matrix weight
bottom.2.bias    2 bias
top.0.weight     3 matrix weight
top.0.bias       3 bias
top.2.weight     3 head weight
top.2.bias       3 bias head
wide.weight      3 head weight
wide.bias        3 bias head
""",
    ),
    "experts of several tasks": (
        by_hand.Mixture(), torch.rand(4, 16),
        """
first.#.0.weight  1 expert matrix weight
first.#.0.bias    1 bias expert
first.#.2.weight  2 expert matrix weight
first.#.2.bias    2 bias expert
second.#.weight   3 router weight
second.#.bias     3 bias router
third.#.0.weight  3 matrix weight
third.#.0.bias    3 bias
third.#.2.weight  3 head weight
third.#.2.bias    3 bias head
""",
    ),
    "experts of tokens": (
        by_hand.Choosing(), torch.rand(8, 5),
        """
start.weight       0   matrix weight
start.bias         0   bias
blocks.#.a.weight  n+1 router weight
blocks.#.b.*weight n+1 expert matrix weight
blocks.#.b.*bias   n+1 bias expert
blocks.#.c.weight  n+1 matrix weight
blocks.#.c.bias    n+1 bias
blocks.#.d.weight  n+1 router weight
blocks.#.d.bias    n+1 bias router
blocks.#.e.weight  n+1 norm weight
blocks.#.e.bias    n+1 bias norm
out.weight         3   head weight
out.bias           3   bias head
""",
    ),
    "blocks under a condition": (
        by_hand.Diffusion(), (torch.rand(2, 6, 4), torch.rand(2, 3)),
        """
place            0   embedding
entry.weight     0   matrix weight
entry.bias       0   bias
time.weight      0   matrix weight
time.bias        0   bias
blocks.#.*weight n+1 matrix weight
blocks.#.*bias   n+1 bias
set.weight       3   matrix weight
set.bias         3   bias
out.weight       3   head weight
out.bias         3   bias head
""",
    ),
    "messages on a graph": (
        by_hand.Graph(), (torch.rand(4, 5), EDGES),
        """
lift.weight        0   matrix weight
lift.bias          0   bias
rounds.#.gain      n+1 norm weight
rounds.#.shift     n+1 bias norm
rounds.#.*weight*  n+1 matrix weight
rounds.#.*bias*    n+1 bias
read.weight        3   head weight
read.bias          3   bias head
""",
    ),
    "state spaces": (
        by_hand.StateSpace(), torch.rand(2, 8, 3),
        """
lift.weight          0   matrix weight
lift.bias            0   bias
layers.#.log_step    n+1 scalar
layers.#.skip        n+1 scalar
layers.#.log_decay   n+1 scalar
layers.#.turn        n+1 scalar
layers.#.read        n+1 matrix weight
layers.#.norm.weight n+1 norm weight
layers.#.norm.bias   n+1 bias norm
layers.#.mix.weight  n+1 matrix weight
layers.#.mix.bias    n+1 bias
out.weight           3   head weight
out.bias             3   bias head
""",
    ),
    "a codebook": (
        by_hand.Codebook(), IMAGE,
        """
table          3 embedding weight
down.0.weight  1 conv weight
down.0.bias    1 bias conv
down.2.weight  2 conv weight
down.2.bias    2 bias conv
up.2.weight    3 conv head weight
up.2.bias      3 bias conv head
up.0.weight    3 conv weight
up.0.bias      3 bias conv
""",
    ),
    "an actor with a critic": (
        by_hand.Agent(), torch.rand(2, 6),
        """
spread         0 scalar
body.0.weight  1 matrix weight
body.0.bias    1 bias
body.2.weight  2 matrix weight
body.2.bias    2 bias
policy.weight  3 head weight
policy.bias    3 bias head
value.weight   3 head weight
value.bias     3 bias head
""",
    ),
    "spectral weights in a list": (
        by_hand.Operator(), torch.rand(2, 16, 2),
        """
lift.weight     0   matrix weight
lift.bias       0   bias
modes.#         n+1 stack weight
local.#.weight  n+1 conv weight
local.#.bias    n+1 bias conv
out.weight      3   head weight
out.bias        3   bias head
""",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_roles_and_depth_are_those_written_down(name: str) -> None:
    model, example, table = TABLES[name]
    assert not differences(model, parameters_of(model, example=example), table)


@pytest.mark.parametrize("name", TABLES)
def test_they_are_the_same_whatever_the_names(name: str) -> None:
    model, example, table = TABLES[name]
    names = dict(model.named_parameters())
    module = renamed(getattr(by_hand, type(model).__name__)(), noise(1))
    of = dict(zip(map(id, module.parameters()), names, strict=True))
    assert not differences(module, parameters_of(module, example=example), table, of)


def test_two_networks_that_play_against_each_other_have_a_ladder_and_a_head_each() -> None:
    def layers(*sizes: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(i, o) for i, o in itertools.pairwise(sizes)))

    networks = {"generator": layers(2, 8, 8, 4), "critic": layers(4, 8, 1)}
    infos = parameters_of(networks, example=lambda nets: nets["critic"](nets["generator"](torch.rand(3, 2))))
    found = {i.name: (i.depth, "head" in i.roles) for i in infos if i.name.endswith("weight")}
    assert found == {
        "generator.0.weight": (1, False), "generator.1.weight": (2, False), "generator.2.weight": (3, True),
        "critic.0.weight": (1, False), "critic.1.weight": (2, True),
    }  # fmt: skip
